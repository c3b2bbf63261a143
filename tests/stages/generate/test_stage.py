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
from pipeline.schema import PAIRS_NEGATIVES
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


@pytest.mark.parametrize(("backend", "shards"), [("rules", 4), ("replay", 4), ("given", 4), ("rules", 1), ("given", 1)])
def test_any_number_of_processes_makes_the_same_bytes(
    tmp_path: Path, backend: str, shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.generate.candidates.CHUNK", 50)
    rows = captions(120)
    settings: dict[str, Any] = {"backend": backend, "shard_size": 160 // shards, "max_reject_rate": 1.0}
    if backend == "replay":
        settings["model"] = str(canned(tmp_path / "r.jsonl", rows))
    told: list[tuple[str, int, int]] = []
    made = []
    for count in (1, 2) if shards > 1 else (1, 3):  # of one shard, three slices
        home = tmp_path / str(count)
        artifact = pairs(home, rows)
        given = [{"pair_id": pair["pair_id"], "text": pair["caption"].replace("A ", "A big ", 1), "origin": "x"}
                 for pair in tables.read(artifact.path).to_pylist()]  # fmt: skip
        tables.write(tables.part(artifact.path / "pairs_negatives", 0), given, PAIRS_NEGATIVES)
        out = home / "store" / "negatives" / "f.partial"
        out.mkdir(parents=True)
        inputs = {"pairs": artifact}
        STAGE.run(Config(**settings, processes=count), inputs, out, lambda *at: told.append(at))
        made.append({**content(out), **kept(home)})
    assert made[0] == made[1] and len(content(out)) == shards
    assert ("shards checked", shards, shards) in told
    assert backend != "rules" or ("captions", 120, 120) in told


@pytest.mark.slow
def test_a_kill_among_several_processes_costs_the_shards_in_hand(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"backend": "rules", "shard_size": 20, "processes": 2, "max_reject_rate": 1.0}
    undisturbed = content(work(tmp_path / "calm", captions(240), **settings)[0])
    home, out = tmp_path / "killed", tmp_path / "killed/store/negatives/f.partial"
    first = start(home, tmp_path / "log", settings, RUN, 0.0)
    while first.poll() is None and len(content(out) if out.exists() else ()) < 3:
        time.sleep(0.01)
    first.kill()
    first.communicate()
    there = {path: path.stat().st_mtime_ns for path in tables.files(out)}
    assert len(there) >= 3
    second = start(home, tmp_path / "log", settings, RUN, 0.0)
    assert second.communicate(timeout=120)[1] == b"" and content(out) == undisturbed
    assert all(path.stat().st_mtime_ns == made for path, made in there.items())


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
