import re
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from flows.cli import inspect as inspection
from pipeline.artifact import file_sha256
from pipeline.config import to_yaml
from pipeline.errors import BusyError, TransientError, UserError
from pipeline.home import open_store
from stages import road
from stages.road import Run
from tests.paths import ROOT

ALL = list(road.STAGES)


def opened(home: Path, source: Path, *overrides: str) -> Run:
    return Run.open("tiny", overrides, recipe=str(source), home=home)


def walk(home: Path, source: Path, *overrides: str, stages: list[str] = ALL) -> list[str]:
    """Run stages of the run `tiny`; gives the names of those that really ran."""
    run = opened(home, source, *overrides)
    with run.at_work(stages):
        return [name for name in stages if not run.make(name).reused]


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
    return {one.stage: one.state for one in opened(home, source, *overrides).status()}


def reasons(run: Run) -> dict[str, str]:
    return {one.stage: "; ".join(one.reasons) for one in run.status()}


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
    run = opened(tmp_path / "home", tiny_recipe, f"ingest.root={tmp_path / 'data'}", "ingest.shard=4")

    def someone_writes(what: str, done: int, total: int) -> None:
        if what == "captions" and done < total:
            with (tmp_path / "data" / "captions.csv").open("a") as handle:
                handle.write("red-box.png,Somebody adds a row.\n")

    with pytest.raises(UserError, match=r"ingest: captions captions\.csv changed while it was read; expected"):
        run.make("ingest", lambda: nullcontext(someone_writes))
    assert not list(run.store.home.rglob("*.parquet"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that cannot be read")
def test_a_fault_of_the_disk_is_worth_another_try(tiny_recipe: Path, tmp_path: Path) -> None:
    overrides = ["ingest.root=/proc/self", "ingest.format.captions=mem", "ingest.format.images=/proc/self/task"]
    with pytest.raises(TransientError, match=r"ingest: Input/output error.*; expected .*; fix: the same command"):
        walk(tmp_path, tiny_recipe, *overrides, stages=["ingest"])


def test_a_stage_without_its_inputs_says_how_to_make_them(tiny_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train: run 'tiny' has no intact pairs; .*fix: degla run tiny --until train"):
        walk(tmp_path, tiny_recipe, stages=["train"])


def test_status_names_the_setting_that_changed(home: Path, tiny_recipe: Path) -> None:
    told = reasons(opened(home, tiny_recipe, "train.lr=0.5"))
    assert told["assemble"] == ""
    assert told["train"] == "config.lr: 1e-06 -> 0.5"
    assert told["report"].startswith("model will be made again")


def test_status_names_changed_files_harmed_outputs_and_changed_code(
    home: Path, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(reasons(opened(home, tiny_recipe)).values()) == {""}
    shutil.copytree(tiny_recipe.parent, tmp_path / "data")
    (tmp_path / "data" / "captions.csv").write_text("image,caption\nred-circle.png,A red circle.\n")
    told = reasons(opened(home, tiny_recipe, f"ingest.root={tmp_path / 'data'}"))
    assert "config.root: " in told["ingest"] and "outside." in told["ingest"]
    assert told["generate"] == "pairs will be made again"
    (home / "tiny" / "dataset" / "part-00000.parquet").unlink()
    told = reasons(opened(home, tiny_recipe))
    assert (told["assemble"], told["train"]) == ("no intact dataset on disk", "dataset will be made again")
    monkeypatch.setitem(road.STAGES, "generate", replace(road.STAGES["generate"], version=99))
    assert re.fullmatch(r"stage_version: \d+ -> 99", reasons(opened(home, tiny_recipe))["generate"])
    told = reasons(opened(home, tiny_recipe, "ingest.root=/nowhere"))
    assert told["ingest"].startswith("ingest: ") and "/nowhere" in told["ingest"]


def test_manifests_alone_tell_changed_settings_and_inputs_but_no_harmed_file(home: Path, tiny_recipe: Path) -> None:
    (home / "tiny" / "dataset" / "part-00000.parquet").unlink()
    assert {one.state for one in opened(home, tiny_recipe).status(manifests=True)} == {"current"}
    changed = opened(home, tiny_recipe, "train.lr=0.5").status(manifests=True)
    assert [one.stage for one in changed if one.state == "stale"] == ["train", "evaluate", "report"]
    assert changed[3].reasons == ("config.lr: 1e-06 -> 0.5",)


def test_a_run_keeps_a_history_of_what_it_held_and_why_it_changed(home: Path, tiny_recipe: Path) -> None:
    run = opened(home, tiny_recipe)
    first = run.store.history("tiny")
    assert [(one["stage"], one["made"], one["changed"]) for one in first] == [(name, True, []) for name in ALL]
    walk(home, tiny_recipe)
    assert run.store.history("tiny") == first, "nothing new is held"
    walk(home, tiny_recipe, "train.lr=1e-5", stages=["train"])
    walk(home, tiny_recipe, stages=["train"])
    made, back = run.store.history("tiny")[len(first) :]
    assert made["made"] and made["changed"] == ["config.lr: 1e-06 -> 1e-05"]
    assert not back["made"] and back["changed"] == ["config.lr: 1e-05 -> 1e-06"]
    assert back["fingerprint"] == first[3]["fingerprint"] != made["fingerprint"]


def test_a_run_goes_back_to_an_artifact_of_its_history_with_what_it_was_made_from_and_its_settings(
    home: Path, tiny_recipe: Path
) -> None:
    first = {kind: opened(home, tiny_recipe)[kind].manifest.fingerprint for kind in road.MAKER}
    assert walk(home, tiny_recipe, "ingest.max_words=40", "train.lr=1e-5", stages=ALL[:4])
    run = Run.open("tiny", home=home)
    assert run["model"].manifest.fingerprint != first["model"] and run.recipe.ingest.max_words == 40
    assert run.go_back(first["model"]) == ALL[:4]
    again = Run.open("tiny", home=home)
    assert {kind: again[kind].manifest.fingerprint for kind in first} == first
    assert again.recipe == opened(home, tiny_recipe).recipe and {one.state for one in again.status()} == {"current"}
    assert [entry["kind"] for entry in again.store.history("tiny")][-1] == "model"
    shutil.rmtree(home / "store" / "dataset" / first["dataset"])
    with pytest.raises(UserError, match="the dataset that run 'tiny' held then is not intact any more"):
        again.go_back(first["model"])
    with pytest.raises(UserError, match="run 'tiny' never held 'abc'"):
        again.go_back("abc")


def test_show_and_sql(home: Path, tiny_recipe: Path) -> None:
    run = opened(home, tiny_recipe)
    (row,) = inspection.show(run, "pairs", "image_uri = 'red-circle.png'", 1)
    assert row["caption"].endswith("house.") or "red circle" in row["caption"]
    answer = run.sql("select type, status, count(*) from negatives group by all")
    assert answer is not None and len(answer.fetchall()) >= 3
    with pytest.raises(UserError, match="sql: .*nowhere"):
        run.sql("select * from nowhere")
    with pytest.raises(UserError, match="has no table 'nothing'"):
        list(inspection.show(run, "nothing", "", 1))


QUERIES = re.findall(r"```sql\n(.+?)```", (ROOT / "docs" / "queries.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_every_query_of_the_documentation_runs(finished: Path, tiny_recipe: Path, query: str) -> None:
    assert opened(finished, tiny_recipe).sql(query) is not None


def test_unknown_stages_are_refused() -> None:
    with pytest.raises(UserError, match=r"no stage 'trian'; expected one of ingest, generate"):
        road.chosen(["trian"])
    assert road.chosen(["train", "ingest"]) == ["ingest", "train"]


# -- the recipe travels by value ---


def test_a_recipe_file_rewritten_meanwhile_changes_nothing_of_a_run_at_work(tiny_recipe: Path, tmp_path: Path) -> None:
    run, other = opened(tmp_path, tiny_recipe), opened(tmp_path, tiny_recipe, "train.lr=0.5")

    def someone_rewrites(what: str, done: int, total: int) -> None:
        run.store.keep_recipe("tiny", to_yaml(other.recipe))

    with run.at_work(ALL[:4]):
        run.make("ingest", lambda: nullcontext(someone_rewrites))
        for name in ALL[1:4]:
            run.make(name)
    assert run["model"].manifest.config["lr"] == run.recipe.train.lr != 0.5


def test_a_second_command_with_other_settings_is_refused_and_says_which(tiny_recipe: Path, tmp_path: Path) -> None:
    first = opened(tmp_path, tiny_recipe)
    with first.at_work(["ingest"]):
        told = r"run: another command is at work on run 'tiny' with other settings \(train\.lr: 1e-06 -> 0\.5\);"
        with pytest.raises(BusyError, match=told + r" .*; fix: wait for it, or name yours: --name NAME"):
            opened(tmp_path, tiny_recipe, "train.lr=0.5").make("ingest")
        assert "lr: 1.0e-06" in first.store.recipe("tiny").read_text(), "the first one's recipe stays"
        opened(tmp_path, tiny_recipe, "ingest.workers=1").make("ingest")  # decides nothing, so it may join
    opened(tmp_path, tiny_recipe, "train.lr=0.5").make("ingest")


def test_a_run_that_cannot_start_leaves_nothing(tiny_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train: run 'tiny' has no intact pairs"):
        opened(tmp_path / "home", tiny_recipe).make("train")
    assert not (tmp_path / "home").exists()


def test_the_settings_of_a_killed_command_bind_nobody(tiny_recipe: Path, tmp_path: Path) -> None:
    script = (
        "import os, sys; from stages.road import Run; run = Run.open('tiny', recipe=sys.argv[1], home=sys.argv[2])\n"
        "with run.at_work(['ingest']): os.kill(os.getpid(), 9)"
    )
    dead = subprocess.run([sys.executable, "-c", script, str(tiny_recipe), str(tmp_path)], timeout=100)
    assert dead.returncode == -9
    assert not opened(tmp_path, tiny_recipe, "train.lr=0.5").make("ingest").reused


def test_a_mistaken_setting_does_not_stay_in_the_run(home: Path, tiny_recipe: Path) -> None:
    recipe = home / "tiny" / "recipe.yaml"
    before = recipe.read_text()
    run = opened(home, tiny_recipe, "train.model=" + str(home))
    with pytest.raises(UserError):
        run.make("train")
    assert recipe.read_text() == before
    run = opened(home, tiny_recipe, "ingest.root=" + str(home), "ingest.max_words=59")
    with pytest.raises(UserError):
        run.make("ingest")
    assert recipe.read_text() == before


@pytest.mark.parametrize("name", ["store", "../x", ".x", "-x", "a b", "a" * 101])
def test_a_name_that_cannot_name_a_run(tmp_path: Path, name: str) -> None:
    told = "cannot name a run; expected at most 100 letters, digits, .* none of store, .*prefect"
    with pytest.raises(UserError, match=told):
        open_store(tmp_path).run(name)


def test_a_home_that_is_a_file_or_empty_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for home in (str(tmp_path / "file"), "", " "):
        monkeypatch.setenv("DEGLA_HOME", home)
        with pytest.raises(UserError, match="home: DEGLA_HOME is .*; expected a folder"):
            open_store()
        with pytest.raises(UserError, match="home: home is .*; expected a folder.*; fix: give another home"):
            open_store(home)


# -- what is read is read once ---


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the content of each file was hashed."""
    counts: Counter[str] = Counter()

    def counting(path: Path | str) -> str:
        counts[str(path)] += 1
        return file_sha256(path)

    monkeypatch.setattr("pipeline.artifact.file_sha256", counting)
    monkeypatch.setattr("pipeline.store.file_sha256", counting)
    return counts


def in_store(counts: Counter[str]) -> Counter[str]:
    return Counter({path: count for path, count in counts.items() if "/store/" in path})


def test_nothing_to_do_hashes_every_file_once(home: Path, tiny_recipe: Path, hashed: Counter[str]) -> None:
    run = opened(home, tiny_recipe)
    with run.at_work(ALL):
        assert {one.state for one in run.status()} == {"current"}
        assert [name for name in ALL if not run.make(name).reused] == []
    files = {str(path) for path in (home / "store").rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert set(in_store(hashed)) == {path for path in files if not Path(path).name.startswith(("manifest.", "card."))}
    assert set(in_store(hashed).values()) == {1}


def test_a_changed_stage_hashes_what_is_there_once_and_what_it_makes_once(
    home: Path, tiny_recipe: Path, hashed: Counter[str]
) -> None:
    run = opened(home, tiny_recipe, "train.lr=0.5")
    with run.at_work(ALL):
        assert "stale" in {one.state for one in run.status()}
        assert [name for name in ALL if not run.make(name).reused] == ["train", "evaluate", "report"]
    assert set(in_store(hashed).values()) == {1}


def test_what_lies_outside_is_looked_at_once_and_once_more_when_the_stage_ends(
    home: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: Counter[str] = Counter()

    def watching(stage: Any) -> Any:
        def outside(config: Any) -> dict[str, str]:
            looks[stage.name] += 1
            return stage.outside(config)

        return replace(stage, outside=outside)

    monkeypatch.setattr(road, "STAGES", {name: watching(stage) for name, stage in road.STAGES.items()})
    run = opened(home, tiny_recipe, "evaluate.benchmarks=[heldout]")
    with run.at_work(ALL):
        run.status()
        for name in ALL:
            run.make(name)
    assert looks == {"ingest": 1, "generate": 1, "assemble": 1, "train": 1, "evaluate": 2, "report": 2}


def test_a_file_changed_since_it_was_hashed_is_hashed_again(home: Path, tiny_recipe: Path) -> None:
    run = opened(home, tiny_recipe)
    assert run.get("pairs") is not None
    part = next((home / "tiny" / "pairs").resolve().glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    assert run.get("pairs") is None


def test_a_run_is_a_door_from_python(home: Path, tiny_recipe: Path) -> None:
    run = opened(home, tiny_recipe)
    assert list(run.stages) == ALL
    assert str(run.make("train")).startswith("train     reused")
    assert run["scores"].table("scores").num_rows == run["scores"].manifest.rows["scores"]
    assert run["pairs"].table(columns=["pair_id"]).column_names == ["pair_id"]
    assert run.report.read_text(encoding="utf-8").startswith("<!")
    assert run.model().description["arch"]
    with pytest.raises(UserError, match=r"run: there is no artifact 'modell'; expected one of pairs, .*model"):
        run["modell"]
    with pytest.raises(UserError, match=r"run: no stage 'trian'"):
        run.make("trian")


def test_tables_are_folders_of_parquet_alone_that_any_reader_takes_by_name(home: Path, tiny_recipe: Path) -> None:
    run = opened(home, tiny_recipe)
    for stage in ALL:
        run.make(stage)
    found = {path.name: path for path in (home / "tiny" / "tables").iterdir()}
    assert {"pairs", "negatives", "prompts", "dataset", "leaks", "steps", "scores", "options"} <= found.keys()
    for name, folder in found.items():
        assert {path.suffix for path in folder.iterdir()} <= {".parquet"}
        rows = run.sql(f"select count(*) from {name}")
        read = pq.read_table(folder) if any(folder.iterdir()) else []
        assert rows is not None and len(read) == rows.fetchall()[0][0]
    shutil.copytree(home, home.parent / "elsewhere", symlinks=True)
    shutil.rmtree(home)
    moved = home.parent / "elsewhere"
    before = pq.read_table(moved / "tiny" / "tables" / "steps")
    opened(moved, tiny_recipe, "train.epochs=2").make("train")
    assert len(pq.read_table(moved / "tiny" / "tables" / "steps")) == 2 * len(before), "they follow the run"
