"""Plans: what a row takes from a recipe, and two rows really trained and compared over one dataset."""

from pathlib import Path

import pytest
import yaml

from flows import plan
from pipeline.errors import UserError
from pipeline.store import Store
from stages import road
from stages.road import Run


def test_the_shipped_plan_is_valid_and_asks_what_the_issue_asks() -> None:
    shipped = plan.load("ablation")
    cells = plan.cells(shipped, "ablation")
    assert len(shipped.seeds) >= 3 and len(cells) == len(shipped.rows) * len(shipped.seeds)
    assert len({cell.run for cell in cells}) == len(cells)
    names = {row.name for row in shipped.rows}
    assert names >= {"clip_ft", "negclip", "ce_clip", "fsc_clip", "con_clip", "triplet_clip", "gift", "degla"}
    assert sum(row.without is not None for row in shipped.rows) == 5
    ks = {cell.recipe.train.negatives_per_caption for cell in cells if cell.row.group in ("degla", "ablations")}
    assert ks == {1, 2, 3, 4, 5}
    shared = {cell.recipe.model_copy(update={"train": None, "evaluate": None}).model_dump_json() for cell in cells}
    assert len(shared) == 1, "one dataset"


def test_a_row_takes_the_method_of_a_recipe_and_nothing_of_its_schedule() -> None:
    shipped = plan.load("ablation", ["ce_clip"], [7])
    (cell,) = plan.cells(shipped, "x", ["train.lr=0.5"])
    rival, base = road.load("ce_clip").train, road.load("demo").train
    assert cell.recipe.train.objective == rival.objective
    assert (cell.recipe.train.model, cell.recipe.train.batch) == (base.model, base.batch)
    assert (cell.recipe.train.lr, cell.recipe.train.seed, cell.run) == (0.5, 7, "x.ce_clip.7")


def test_unknown_rows_and_fields_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no row 'clipp'; expected one of clip_ft, "):
        plan.load("ablation", ["clipp"])
    path = tmp_path / "mine.yaml"
    path.write_text(
        "kind: ablation\ndescription: x\nbase: demo\nseeds: [1]\n"
        "rows:\n  - {name: a, title: A, group: rivals, resipe: b}\n"
    )
    assert plan.is_plan(str(path)) and not plan.is_plan("demo")
    with pytest.raises(UserError, match=r"rows\.0\.resipe: "):
        plan.load(str(path))


@pytest.mark.slow
def test_rows_are_trained_over_one_dataset_and_compared(tmp_path: Path, tiny_recipe: Path) -> None:
    path = tmp_path / "small.yaml"
    settings = {
        "description": "two rows",
        "kind": "ablation",
        "base": str(tiny_recipe),
        "seeds": [1, 2],
        "rows": [
            {"name": "degla", "title": "DeGLA", "group": "degla"},
            {"name": "clip_ft", "title": "No negatives", "group": "rivals", "recipe": "clip_ft"},
            {"name": "no_swap", "title": "No swaps", "group": "types", "without": "swap_nouns"},
        ],
    }
    path.write_text(yaml.safe_dump(settings))
    store, chosen = Store(tmp_path / "home"), plan.load(str(path))
    for name in plan.SHARED:
        Run.open("small", recipe=str(tiny_recipe), store=store).make(name)
    cells = plan.cells(chosen, "small")
    with plan.prepared(store, "small", cells) as runs:
        made = [plan.work(run) for run in runs]
    assert all(made)
    assert len(list((store.home / "store" / "dataset").glob("*/manifest.json"))) == 1
    assert len(list((store.home / "store" / "model").glob("*/manifest.json"))) == 6
    page = (plan.write(store, "small", chosen, cells) / "comparison.md").read_text()
    assert "| No negatives |" in page.replace("**", "") and "DeGLA minus No negatives" in page
    models = sorted((store.home / "store" / "model").glob("*/manifest.json"))
    stamps = [model.stat().st_mtime_ns for model in models]
    assert not plan.work(runs[0])
    assert [model.stat().st_mtime_ns for model in models] == stamps, "what is done is reused"
