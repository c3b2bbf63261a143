"""The short chaos suite: `kill -9` in every stage in turn, full and read-only disks, two at once, a lost server.

`make chaos` is the long one: every fault at every stage, several times, through `degla run`.
"""

import random
import signal
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.chaos import faults
from tests.chaos.lab import STAGES, WITHOUT_PREFECT, Alive, Lab, half_artifacts

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Lab:
    folder = tmp_path_factory.mktemp("chaos")
    settings = yaml.safe_load(tiny_recipe.read_text())
    settings["generate"]["shard_size"] = settings["assemble"]["shard"] = 4
    settings["train"] |= {"epochs": 3, "checkpoint_steps": 1}
    recipe = folder / "small.yaml"
    recipe.write_text(yaml.safe_dump(settings))
    made = Lab(folder, recipe, WITHOUT_PREFECT)
    made.prepare()
    return made


def test_killed_in_every_stage_in_turn_the_run_ends_with_the_same_bytes(lab: Lab, tmp_path: Path) -> None:
    draw = random.Random(7)
    home = tmp_path / "home"
    for stage in STAGES:
        alive = lab.start(home)
        assert alive.until(lambda stage=stage: lab.is_at(home, stage)), alive.end().err
        time.sleep(draw.uniform(0, lab.seconds[stage]))
        alive.signal(signal.SIGKILL)
        alive.end()
        assert alive.orphans() == [] and half_artifacts(home) == []
    ended = lab.start(home).end()
    assert ended.status == 0, ended.err
    assert lab.differing(home) == []


@pytest.mark.parametrize("fault", ["full disk", "read-only store"])
@pytest.mark.root
@pytest.mark.skipif(not faults.can_mount(), reason="mounts a file system, which takes root")
def test_a_disk_that_cannot_be_written_costs_nothing_but_time(lab: Lab, fault: str) -> None:
    outcome = faults.FAULTS[fault](lab, "generate", random.Random(1))
    assert outcome.faults == []


def test_two_at_once_make_one_artifact(lab: Lab) -> None:
    assert faults.twice(lab, "ingest", random.Random(1)).faults == []


def test_kill_9_of_degla_run_takes_prefects_server_along(lab: Lab, tmp_path: Path) -> None:
    """The real command with its embedded server."""
    command, home = (str(Path(sys.executable).with_name("degla")), "run", str(lab.recipe)), tmp_path / "home"
    alive = Alive(command, tmp_path / "said", DEGLA_HOME=str(home))
    assert alive.until(lambda: lab.is_at(home, "ingest")), alive.end().err
    assert any("create_app" in words for words in alive.family().values())
    alive.signal(signal.SIGKILL)
    assert alive.end().status == -signal.SIGKILL and alive.orphans() == []
