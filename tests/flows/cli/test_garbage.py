"""`degla gc` over a finished tiny road: what is deleted, and what never is."""

import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest

from flows.cli import garbage
from pipeline.config import to_yaml
from pipeline.store import Store
from stages import road
from tests.pipeline.test_run import finished, home, opened, walk

__all__ = ["finished", "home"]


def found(home: Path, **kwargs: bool) -> set[str]:
    return {str(one.path.relative_to(home)) for one in garbage.find(Store(home), **kwargs)}


def target(home: Path, kind: str) -> str:
    return str((home / "tiny" / kind).resolve().relative_to(home))


def test_a_finished_run_has_nothing_to_delete(home: Path) -> None:
    assert list(home.glob("images/*/*.arrow")), "training kept them"
    assert found(home) == set()


def test_what_no_run_links_to_any_more_goes_and_nothing_else(home: Path, tiny_recipe: Path) -> None:
    former = {target(home, kind) for kind in ("scores", "report")}
    walk(home, tiny_recipe, "evaluate.benchmarks=[heldout]")
    assert found(home) == former
    before = {path for path in home.rglob("*") if path.is_file()}
    garbage.delete(Store(home), garbage.find(Store(home)))
    gone = {path for path in before if not path.exists()}
    assert gone == {path for path in before if any(path.is_relative_to(home / name) for name in former)}
    assert walk(home, tiny_recipe, "evaluate.benchmarks=[heldout]") == []


def test_what_a_linked_artifact_was_made_from_stays(home: Path) -> None:
    for kind in ("pairs", "negatives", "dataset", "model", "scores"):
        (home / "tiny" / kind).unlink()
    assert found(home) == set(), "the report tells of all of them"
    (home / "tiny" / "report").unlink()
    assert {name.split("/")[1] for name in found(home) if name.startswith("store/")} == set(road.MAKER)
    garbage.delete(Store(home), garbage.find(Store(home)))
    assert not list(home.glob("images/*/*.arrow")), "no pairs hold them any more"


def test_a_harmed_artifact_that_a_run_links_to_stays(home: Path) -> None:
    (home / "tiny" / "dataset" / "manifest.json").write_text("{")
    assert found(home) == set()


def test_a_link_that_was_never_finished_goes_and_what_it_names_stays(home: Path) -> None:
    target = (home / "tiny" / "model").resolve()
    (home / "tiny" / ".model.0.tmp").symlink_to(target)
    garbage.delete(Store(home), garbage.find(Store(home)))
    assert not (home / "tiny" / ".model.0.tmp").is_symlink()
    assert Store(home).linked("tiny", "model") is not None


def test_unfinished_work_stays_as_long_as_a_recipe_leads_to_it(home: Path, tiny_recipe: Path) -> None:
    store = Store(home)
    folder = (home / "tiny" / "scores").resolve()
    folder.rename(store.partial("scores", folder.name))
    store.partial("scores", "f" * 16).mkdir()
    assert found(home) == {f"store/scores/{'f' * 16}.partial"}
    (home / "tiny" / "report").unlink()
    store.keep_recipe("tiny", to_yaml(opened(home, tiny_recipe, "evaluate.pictures=101").recipe))
    assert f"store/scores/{folder.name}.partial" in found(home)


def _hold(home: Path, ready: "multiprocessing.synchronize.Event") -> None:
    with Store(home).build("model", "f" * 16):
        ready.set()
        signal.pause()


def test_what_a_living_writer_holds_or_reads_stays(home: Path) -> None:
    shutil.rmtree(home / "tiny")
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    writer = context.Process(target=_hold, args=(home, ready))
    writer.start()
    try:
        assert ready.wait(60)
        kinds = {name.split("/")[1] for name in found(home)}
        assert kinds & {"pairs", "dataset", "model"} == {"model"}, "training reads pairs and dataset"
        assert f"store/model/{'f' * 16}.partial" not in found(home)
    finally:
        assert writer.pid
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    assert f"store/model/{'f' * 16}.partial" in found(home)


@pytest.mark.parametrize("backend", ["rules", "vllm"])
def test_paid_replies_go_only_when_asked_for(home: Path, backend: str) -> None:
    folder = home / "replies" / "swap_nouns" / ("0" * 16)
    folder.mkdir()
    (folder / "about.json").write_text(f'{{"backend": "{backend}"}}')
    name = str(folder.relative_to(home))
    assert (name in found(home)) == (backend == "rules")
    assert name in found(home, replies=True)
