import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from flows import recipe, road
from flows.cli import inspect as inspection
from pipeline.artifact import Store
from pipeline.errors import TransientError, UserError
from pipeline.stage import Progress, silent
from tests.paths import ROOT

ALL = list(road.STAGES)


@contextmanager
def quiet() -> Iterator[Progress]:
    yield silent


def walk(home: Path, source: Path, *overrides: str, stages: list[str] = ALL) -> list[str]:
    """Run stages of the run `tiny`; gives the names of those that really ran."""
    store = Store(home)
    resolved = recipe.load(str(source), overrides)
    road.keep_recipe(store, "tiny", resolved)
    return [name for name in stages if not road.run_stage(store, "tiny", resolved, name, quiet).reused]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Path:
    home = tmp_path_factory.mktemp("home")
    assert walk(home, tiny_recipe) == ALL
    return home


@pytest.fixture
def home(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished home, moved elsewhere."""
    shutil.copytree(finished, tmp_path / "moved", symlinks=True)
    return tmp_path / "moved"


def states(home: Path, source: Path, *overrides: str) -> dict[str, str]:
    store = Store(home)
    return {s.stage: s.state for s in road.standing(store, "tiny", recipe.load(str(source), overrides))}


def test_a_second_walk_runs_nothing_even_after_a_move(home: Path, tiny_recipe: Path) -> None:
    assert walk(home, tiny_recipe) == []
    assert set(states(home, tiny_recipe).values()) == {"current"}


@pytest.mark.parametrize("kind", sorted(road.MAKER))
def test_a_deleted_artifact_is_made_again_and_nothing_that_does_not_change(
    home: Path, tiny_recipe: Path, kind: str
) -> None:
    target = (home / "tiny" / kind).resolve()
    shutil.rmtree(target)
    assert states(home, tiny_recipe)[road.MAKER[kind]] == "missing"
    ran = walk(home, tiny_recipe)
    # Equal content is an equal input: what is downstream of a byte-identical artifact is reused.
    assert ran[0] == road.MAKER[kind]
    assert set(ran) <= set(ALL[ALL.index(road.MAKER[kind]) :])
    if kind in ("pairs", "negatives", "dataset"):
        assert ran == [road.MAKER[kind]]


def test_a_flipped_bit_is_noticed(home: Path, tiny_recipe: Path) -> None:
    part = next((home / "tiny" / "dataset").resolve().glob("*.parquet"))
    raw = bytearray(part.read_bytes())
    raw[len(raw) // 2] ^= 1
    part.write_bytes(raw)
    assert walk(home, tiny_recipe) == ["assemble"]


def test_a_changed_setting_reruns_that_stage_and_what_depends_on_it(home: Path, tiny_recipe: Path) -> None:
    assert states(home, tiny_recipe, "evaluate.benchmarks=[heldout]") == dict.fromkeys(ALL, "current") | {
        "evaluate": "stale",
        "report": "stale",
    }
    assert walk(home, tiny_recipe, "evaluate.benchmarks=[heldout]") == ["evaluate", "report"]
    assert walk(home, tiny_recipe) == [], "the former result is still in the store"


def test_a_placement_setting_reruns_nothing(home: Path, tiny_recipe: Path) -> None:
    assert walk(home, tiny_recipe, "evaluate.batch=3", "train.checkpoint_steps=7", "ingest.workers=1") == []


def test_a_changed_picture_reruns_from_ingest(home: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_recipe.parent, tmp_path / "data")
    Image.new("RGB", (64, 64), "black").save(tmp_path / "data" / "images" / "red-circle.png")
    ran = walk(home, tiny_recipe, f"ingest.root={tmp_path / 'data'}", stages=["ingest", "generate"])
    assert ran[0] == "ingest"


def test_moved_pictures_rerun_ingest_alone(home: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_recipe.parent, tmp_path / "data")
    assert walk(home, tiny_recipe, f"ingest.root={tmp_path / 'data'}") == ["ingest"]


def test_a_file_that_changes_while_it_is_read_is_an_error_and_nothing_of_it_stays(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_recipe.parent, tmp_path / "data")
    store = Store(tmp_path / "home")
    resolved = recipe.load(str(tiny_recipe), [f"ingest.root={tmp_path / 'data'}", "ingest.shard=4"])

    def someone_writes(what: str, done: int, total: int) -> None:
        if what == "captions" and done < total:
            with (tmp_path / "data" / "captions.csv").open("a") as handle:
                handle.write("red-box.png,Somebody adds a row.\n")

    with pytest.raises(UserError, match=r"ingest: captions captions\.csv changed while it was read; expected"):
        road.run_stage(store, "tiny", resolved, "ingest", lambda: nullcontext(someone_writes))
    assert not list(store.home.rglob("*.parquet"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that cannot be read")
def test_a_fault_of_the_disk_is_worth_another_try(tiny_recipe: Path, tmp_path: Path) -> None:
    overrides = ["ingest.root=/proc/self", "ingest.format.captions=mem", "ingest.format.images=/proc/self/task"]
    with pytest.raises(TransientError, match=r"ingest: Input/output error.*; expected .*; fix: the same command"):
        walk(tmp_path, tiny_recipe, *overrides, stages=["ingest"])


def test_a_stage_without_its_inputs_says_how_to_make_them(tiny_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train: run 'tiny' has no intact pairs; .*fix: degla run tiny --until train"):
        walk(tmp_path, tiny_recipe, stages=["train"])


def test_why_names_the_setting_that_changed(home: Path, tiny_recipe: Path) -> None:
    changed = recipe.load(str(tiny_recipe), ["train.lr=0.5"])
    reasons = dict(inspection.why(Store(home), "tiny", changed))
    assert reasons["assemble"] == "reused"
    assert reasons["train"] == "config.lr: 1e-06 -> 0.5"
    assert reasons["report"].startswith("model will be made again") or "model" in reasons["report"]


def test_why_names_changed_files_harmed_outputs_and_changed_code(
    home: Path, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, same = Store(home), recipe.load(str(tiny_recipe))
    assert set(dict(inspection.why(store, "tiny", same)).values()) == {"reused"}
    shutil.copytree(tiny_recipe.parent, tmp_path / "data")
    (tmp_path / "data" / "captions.csv").write_text("image,caption\nred-circle.png,A red circle.\n")
    moved = recipe.load(str(tiny_recipe), [f"ingest.root={tmp_path / 'data'}"])
    reasons = dict(inspection.why(store, "tiny", moved))
    assert "config.root: " in reasons["ingest"] and "outside." in reasons["ingest"]
    assert reasons["generate"] == "pairs will be made again"
    (home / "tiny" / "dataset" / "part-00000.parquet").unlink()
    reasons = dict(inspection.why(store, "tiny", same))
    assert (reasons["assemble"], reasons["train"]) == ("no intact dataset on disk", "dataset will be made again")
    monkeypatch.setitem(road.STAGES, "generate", replace(road.STAGES["generate"], version=99))
    assert re.fullmatch(r"stage_version: \d+ -> 99", dict(inspection.why(store, "tiny", same))["generate"])


def test_show_diff_and_sql(home: Path, tiny_recipe: Path) -> None:
    store = Store(home)
    (row,) = inspection.show(store, "tiny", "pairs", "image_uri = 'red-circle.png'", 1)
    assert row["caption"].endswith("house.") or "red circle" in row["caption"]
    assert inspection.diff(store, "tiny", "tiny") == {"rows only in tiny": 0}
    answer = inspection.ask(store, "tiny", "select type, status, count(*) from negatives group by all")
    assert answer is not None and len(answer.fetchall()) >= 3
    with pytest.raises(UserError, match="sql: .*nowhere"):
        inspection.ask(store, "tiny", "select * from nowhere")
    with pytest.raises(UserError, match="has no table 'nothing'"):
        list(inspection.show(store, "tiny", "nothing", "", 1))


QUERIES = re.findall(r"```sql\n(.+?)```", (ROOT / "docs" / "queries.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_every_query_of_the_documentation_runs(finished: Path, query: str) -> None:
    assert inspection.ask(Store(finished), "tiny", query) is not None


def test_diff_names_what_changed_with_an_example(home: Path, tiny_recipe: Path) -> None:
    store = Store(home)
    changed = recipe.load(str(tiny_recipe), ["ingest.max_words=8", "generate.types=[swap_nouns]"])
    for stage in ("ingest", "generate", "assemble"):
        road.run_stage(store, "fewer", changed, stage, quiet)
    lost, none, *rest = inspection.diff(store, "tiny", "fewer").items()
    assert re.fullmatch(r"rows only in tiny, e\.g\. [0-9a-f]{16} \w.*", lost[0]) and lost[1] > 0
    assert none == ("rows only in fewer", 0)
    assert any(re.fullmatch(r"replace_nouns differs, e\.g\. [0-9a-f]{16}: A .* -> none", what) for what, _ in rest)


def test_unknown_stages_are_refused() -> None:
    with pytest.raises(UserError, match=r"no stage 'trian'; expected one of ingest, generate"):
        road.chosen(["trian"])
    assert road.chosen(["train", "ingest"]) == ["ingest", "train"]
