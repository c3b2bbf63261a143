import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import tables
from pipeline.errors import UserError
from stages.generate import STAGE, Config
from tests.paths import ROOT
from tests.stages.generate.canned import canned, captions, content, kept, pairs, work


def test_no_types_make_an_empty_table_without_a_model(tmp_path: Path) -> None:
    config: dict[str, Any] = {"types": [], "model": "data/nothing_there"}
    assert STAGE.outside(Config(**config)) == {}
    out, meta = work(tmp_path, captions(4), **config)
    assert tables.read(out).num_rows == 0 and meta["types"] == {}


WORKER = """
import json, os, sys, time
from pathlib import Path

sys.path.insert(0, {root!r})
from pipeline.stage import silent
from stages.generate import STAGE, Config
from stages.language_models.replay import Replay
from tests.stages.generate.canned import captions, pairs

respond = Replay.respond

def slow(*arguments):
    for response in respond(*arguments):
        time.sleep({pause})
        with open({log!r}, "a") as log:
            log.write("1\\n")
        yield response

Replay.respond = slow
home = Path({home!r})
out = home / "store" / "negatives" / "f.partial"
out.mkdir(parents=True, exist_ok=True)
config, inputs = Config(**{settings!r}), {{"pairs": pairs(home, captions(240))}}
{act}
"""


RUN = "STAGE.run(config, inputs, out, silent)"
ASSIST = "STAGE.assist(config, inputs, out, silent)"


def start(home: Path, log: Path, settings: dict[str, Any], act: str, pause: float) -> subprocess.Popen[bytes]:
    """The stage in a process of its own, slowed down by `pause` seconds a response, that notes how much it asked."""
    code = WORKER.format(root=str(ROOT), log=str(log), home=str(home), settings=settings, act=act, pause=pause)
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)


def asked(log: Path) -> int:
    return sum(map(int, log.read_text().split())) if log.exists() else 0


def replies_in(home: Path) -> int:
    return sum(tables.rows(home / name) for name in kept(home))


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Settings, and what an undisturbed run of them makes."""
    folder = tmp_path_factory.mktemp("calm")
    path = canned(folder / "r.jsonl", captions(240))
    settings: dict[str, Any] = {
        "backend": "replay",
        "model": str(path),
        "shard_size": 60,
        "types": ["swap_nouns", "replace_nouns"],
    }
    return settings, content(work(folder, captions(240), **settings)[0])


@pytest.mark.slow
def test_ten_kills_change_no_byte_and_cost_each_what_came_since_responses_were_kept(tmp_path: Path, calm: Any) -> None:
    settings, undisturbed = calm
    settings = {**settings, "keep_every": 0.05}
    log, home, rng, kills = tmp_path / "asked", tmp_path / "killed", random.Random(5), 0
    while True:
        process, before = start(home, log, settings, RUN, 0.005), asked(log)
        while process.poll() is None and kills < 10:
            if asked(log) > before:  # it works: kill it at a random moment soon
                time.sleep(rng.uniform(0, 0.2))
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        _, errors = process.communicate(timeout=120)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, errors.decode()
    assert kills == 10
    assert content(home / "store" / "negatives" / "f.partial") == undisturbed
    assert asked(log) <= replies_in(home) + 10 * (1 + 0.05 / 0.005) < replies_in(home) + 10 * 60


@pytest.mark.slow
def test_two_processes_fill_one_run_together(tmp_path: Path, calm: Any) -> None:
    settings, undisturbed = calm
    home, logs = tmp_path / "shared", [tmp_path / "run", tmp_path / "assist"]
    pairs(home, captions(240))
    (home / "store" / "negatives" / "f.partial").mkdir(parents=True)
    processes = [start(home, log, settings, act, 0.01) for log, act in zip(logs, (RUN, ASSIST), strict=True)]
    errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert content(home / "store" / "negatives" / "f.partial") == undisturbed
    assert min(map(asked, logs)) > 0 and sum(map(asked, logs)) == replies_in(home)  # both worked, nothing asked twice


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "vllm", "model": "data/no_such_model"}, "no model folder"),
        ({"backend": "vllm", "model": str(ROOT / "stages")}, r"no config\.json"),
        ({"backend": "replay", "model": "no_such_file"}, "no file"),
        ({"prompts": "no_such_set"}, "no prompt set"),
        ({"examples_per_prompt": 5000}, "examples_per_prompt = 5000"),
    ],
)
def test_what_is_not_there_is_told_before_anything_runs(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        STAGE.outside(Config(**settings))
