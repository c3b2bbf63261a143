"""Plans: what a row takes from a recipe, and two rows really trained and compared over one dataset."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import comparing, plan, search
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
    assert names >= {"read_align", "degla_plus", "labclip", "cs_clip"}
    assert sum(row.without is not None for row in shipped.rows) == 5
    ks = {cell.recipe.train.negatives_per_caption for cell in cells if cell.row.group in ("degla", "ablations")}
    assert ks == {1, 2, 3, 4, 5}
    shared: dict[str, set[str]] = {}
    for cell in cells:
        made = cell.recipe.model_copy(update={"train": None, "evaluate": None}).model_dump_json()
        shared.setdefault(made, set()).add(cell.row.name)
    assert sorted(map(len, shared.values())) == [1, 1, len(names) - 2], "one dataset, but for negations and units"


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


def written(folder: Path, **changes: Any) -> Path:
    """A plan of two searched rows and one that takes what the first chose."""
    grid = {"train.lr": [0.001, 0.002, 0.004], "train.objective.distill": [0.03, 0.1]}
    rows = [
        {"name": "degla", "title": "DeGLA", "group": "degla", "search": grid},
        {
            "name": "clip_ft",
            "title": "Plain",
            "group": "rivals",
            "recipe": "clip_ft",
            "search": {"train.lr": [1, 2, 3]},
        },
        {"name": "no_igc", "title": "No IGC", "group": "ablations", "like": "degla", "set": ["train.objective.igc=0"]},
    ]
    settings = {"kind": "ablation", "description": "x", "base": "demo", "seeds": [1, 2], "rows": rows}
    path = folder / "searched.yaml"
    path.write_text(yaml.safe_dump(settings | {"search": {"trials": 3, "train_seed": 9}} | changes))
    return path


def test_every_searched_row_tries_as_many_settings_and_the_same_ones_each_time(tmp_path: Path) -> None:
    chosen = plan.load(str(written(tmp_path)))
    found = search.trials(chosen, "s")
    assert [trial.row.name for trial in found] == ["degla"] * 3 + ["clip_ft"] * 3
    assert len({trial.run for trial in found}) == 6 and found == search.trials(chosen, "s")
    for trial in found:
        train = trial.recipe.train
        assert (train.seed, train.select, trial.keeps) == (9, "best", "last")
        assert train.lr == trial.settings["train.lr"]
    assert len({tuple(trial.settings.items()) for trial in found[:3]}) == 3
    other = plan.load(str(written(tmp_path, search={"trials": 3, "train_seed": 9, "seed": 1})))
    assert [one.settings for one in search.trials(other, "s")] != [one.settings for one in found]


def test_a_row_is_trained_with_what_it_or_its_like_chose_and_its_own_settings_come_last(tmp_path: Path) -> None:
    chosen = plan.load(str(written(tmp_path)))
    best = {"degla": {"train.lr": 0.004, "train.objective.igc": 7.0}, "clip_ft": {"train.lr": 3.0}}
    cells = {cell.row.name: cell.recipe.train for cell in plan.cells(chosen, "s", chosen=best)}
    assert (cells["degla"].lr, cells["degla"].objective.igc) == (0.004, 7)
    assert (cells["no_igc"].lr, cells["no_igc"].objective.igc) == (0.004, 0)
    assert cells["clip_ft"].lr == 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"search": None}, "row degla has a search; expected the plan's search"),
        ({"search": {"trials": 4, "train_seed": 9}}, "row clip_ft has a grid of 3; expected at least 4"),
        ({"search": {"trials": 2, "train_seed": 2}}, "train_seed 2 is a seed of the comparison"),
        ({"rows": [{"name": "a", "title": "A", "group": "rivals", "like": "b"}]}, "row a is like b; expected a row"),
        (
            {"rows": [{"name": "a", "title": "A", "group": "rivals", "search": {"evaluate.seed": [1, 2, 3]}}]},
            "evaluate.seed is not searched; expected train.lr",
        ),
        (
            {"rows": [{"name": "a", "title": "A", "group": "rivals", "search": {"train.lr": [1, 1, 2]}}]},
            "expected different values",
        ),
    ],
)
def test_a_search_that_would_not_be_the_same_for_all_is_rejected(tmp_path: Path, changes: Any, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        plan.load(str(written(tmp_path, **changes)))


def test_a_row_is_not_compared_without_the_row_whose_settings_it_takes(tmp_path: Path) -> None:
    path = str(written(tmp_path))
    with pytest.raises(UserError, match="row no_igc takes what degla chose"):
        plan.load(path, ["no_igc"])
    with pytest.raises(UserError, match="seed 9 trains the search"):
        plan.load(path, seeds=[9])


@pytest.mark.slow
def test_a_search_chooses_on_the_val_split_and_the_page_shows_it(tmp_path: Path, tiny_recipe: Path) -> None:
    rates = {"train.lr": [1.0e-7, 0.01]}
    rows = [
        {"name": "degla", "title": "DeGLA", "group": "degla", "search": rates},
        {"name": "clip_ft", "title": "Plain", "group": "rivals", "recipe": "clip_ft", "search": rates},
    ]
    path = written(
        tmp_path, rows=rows, base=str(tiny_recipe), search={"trials": 2, "train_seed": 9}, settings=["train.epochs=2"]
    )
    split = ["ingest.val_share=0.4"]
    store, chosen = Store(tmp_path / "home"), plan.load(str(path))
    for name in plan.SHARED:
        Run.open("s", split, recipe=str(tiny_recipe), store=store).make(name)
    trials = search.trials(chosen, "s", split)
    with pytest.raises(UserError, match=r"s\.degla\.trial0 is not trained"):
        search.choose(store, trials)
    with plan.prepared(store, "s", trials, search.VERBS) as runs:
        made = [search.try_out(run) for run in runs]
    assert all(made)
    searched = search.choose(store, trials)
    assert not list((store.home / "store").glob("scores/*")), "no benchmark was looked at"
    for found in searched.values():
        assert len(found["trials"]) == 2 and found["seconds"] >= 0
        best = max(found["trials"], key=lambda one: one["score"])
        assert found["chosen"] == best["settings"]
    cells = plan.cells(chosen, "s", split, {row: one["chosen"] for row, one in searched.items()})
    with plan.prepared(store, "s", cells) as runs:
        for run in runs:
            plan.work(run)
    folder = comparing.write(store, "s", chosen, cells, searched)
    page, facts = (folder / "comparison.md").read_text(), json.loads((folder / "comparison.json").read_text())
    assert "## Search" in page and "## DeGLA minus each other row" in page and "blind" in page
    (plain,) = (row for row in facts["rows"] if row["name"] == "clip_ft")
    assert plain["search"] == searched["clip_ft"]
    gap = plain["difference"]["heldout.mean"]
    ours, theirs = (
        {row["name"]: row for row in facts["rows"]}[name]["mean"]["heldout.mean"] for name in ("degla", "clip_ft")
    )
    assert gap["value"] == pytest.approx(ours - theirs) and gap["low"] <= gap["value"] <= gap["high"]


@pytest.mark.slow
def test_rows_are_trained_over_one_dataset_and_compared(tmp_path: Path, tiny_recipe: Path) -> None:
    path = tmp_path / "small.yaml"
    denied = ["generate.types=[negation]"]
    settings = {
        "description": "two rows",
        "kind": "ablation",
        "base": str(tiny_recipe),
        "seeds": [1, 2],
        "rows": [
            {"name": "degla", "title": "DeGLA", "group": "degla"},
            {"name": "clip_ft", "title": "No negatives", "group": "rivals", "recipe": "clip_ft"},
            {"name": "no_swap", "title": "No swaps", "group": "types", "without": "swap_nouns"},
            {"name": "negation", "title": "Negation", "group": "rivals", "recipe": "negation", "set": denied},
        ],
    }
    path.write_text(yaml.safe_dump(settings))
    store, chosen = Store(tmp_path / "home"), plan.load(str(path))
    for name in plan.SHARED:
        Run.open("small", recipe=str(tiny_recipe), store=store).make(name)
    cells = plan.cells(chosen, "small")
    with plan.prepared(store, "small", cells) as runs:
        made = [plan.work(run, base="small") for run in runs]
    assert all(made)
    assert len(list((store.home / "store" / "dataset").glob("*/manifest.json"))) == 2, "one, and one of negations"
    assert len(list((store.home / "store" / "model").glob("*/manifest.json"))) == 8
    scored = [store.linked(cell.run, "scores").manifest.inputs["dataset"] for cell in cells]
    trained = [store.linked(cell.run, "model").manifest.inputs["dataset"] for cell in cells]
    assert len(set(scored)) == 1 and len(set(trained)) == 2, "all are asked the same"
    page = (comparing.write(store, "small", chosen, cells) / "comparison.md").read_text()
    assert "| No negatives |" in page.replace("**", "") and "## DeGLA minus each other row" in page
    shown = page.partition("## Against the start")[2].partition("## ")[0]
    assert re.search(r"\| No negatives \| \w+ \d.* \| new 2 \|", shown) and not re.search(r"unjudged \d", shown)
    models = sorted((store.home / "store" / "model").glob("*/manifest.json"))
    stamps = [model.stat().st_mtime_ns for model in models]
    assert not plan.work(runs[0])
    assert [model.stat().st_mtime_ns for model in models] == stamps, "what is done is reused"
