"""What is done to a run, and what became of it. Each fault is one function of (lab, stage, draw) -> Outcome."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import yaml

from pipeline.artifact import MANIFEST, Manifest
from pipeline.store import Store
from stages import road
from tests.chaos.lab import WITHOUT_PREFECT, Alive, Ended, Lab, half_artifacts, part_of


class Outcome(NamedTuple):
    """What became of one fault at one stage.

    Attributes:
        status: how the disturbed process ended.
        said: the line it printed, if it printed one.
        faults: what was not as it must be; empty = all well.
    """

    status: int
    said: str
    faults: list[str]


def examined(lab: Lab, home: Path, stage: str, alive: Alive, ended: Ended, *, again: bool = True) -> Outcome:
    """Look at what a disturbed run left, give the same command again, and compare with the undisturbed run."""
    faults = [f"orphan: {command[:80]}" for command in alive.orphans()]
    faults += [f"half an artifact: {path}" for path in half_artifacts(home)]
    if "Traceback" in ended.err:
        faults.append(f"traceback: {ended.err.strip().splitlines()[-1][:120]}")
    if again:
        second = lab.start(home, "--only", stage)
        end = second.end()
        if end.status:
            faults.append(f"the same command ended with {end.status}: {end.error or end.err.strip()[-200:]}")
        faults += [f"orphan afterwards: {command[:80]}" for command in second.orphans()]
    faults += [f"differs: {name}" for name in lab.differing(home, stage)]
    shutil.rmtree(home, ignore_errors=True)
    return Outcome(ended.status, ended.error, faults)


# -- while a stage runs ------------------------------------------------------------------------------------------------


def struck(lab: Lab, stage: str, draw: random.Random, blow: Callable[[Alive], None]) -> Outcome:
    """Strike at a random moment of a stage, then go on."""
    home = lab.before(stage)
    alive = lab.start(home, "--only", stage)
    alive.until(lambda: lab.is_at(home, stage))
    time.sleep(draw.uniform(0, lab.seconds[stage]))
    blow(alive)
    return examined(lab, home, stage, alive, alive.end())


def kill(lab: Lab, stage: str, draw: random.Random) -> Outcome:
    """`kill -9` of the process group."""
    return struck(lab, stage, draw, lambda alive: alive.signal(signal.SIGKILL))


def terminate(lab: Lab, stage: str, draw: random.Random) -> Outcome:
    """SIGTERM to the process group."""
    return struck(lab, stage, draw, lambda alive: alive.signal(signal.SIGTERM))


def interrupt(lab: Lab, stage: str, draw: random.Random) -> Outcome:
    """SIGINT (Ctrl-C) to the process group."""
    return struck(lab, stage, draw, lambda alive: alive.signal(signal.SIGINT))


def lose_server(lab: Lab, stage: str, draw: random.Random) -> Outcome:
    """`kill -9` of Prefect's embedded server."""

    def blow(alive: Alive) -> None:
        for pid, command in alive.family().items():
            if "create_app" in command:
                os.kill(pid, signal.SIGKILL)

    return struck(lab, stage, draw, blow)


def kill_then_move(lab: Lab, stage: str, draw: random.Random) -> Outcome:
    """`kill -9`, then the home moves to another folder and goes on there."""
    home = lab.before(stage)
    alive = lab.start(home, "--only", stage)
    alive.until(lambda: lab.is_at(home, stage))
    time.sleep(draw.uniform(0, lab.seconds[stage]))
    alive.signal(signal.SIGKILL)
    ended = alive.end()
    moved = home.with_name(f"{home.name}.moved")
    home.rename(moved)
    return examined(lab, moved, stage, alive, ended)


def twice(lab: Lab, stage: str, draw: random.Random) -> Outcome:
    """Two runs of the same recipe at once, in one home."""
    home = lab.before(stage)
    both = [lab.start(home, "--only", stage) for _ in range(2)]
    ended = [alive.end() for alive in both]
    worse = max(ended, key=lambda one: one.status)
    faults = [] if min(one.status for one in ended) == 0 else ["neither came to its end"]
    if worse.status and "another process is making" not in worse.error:
        faults.append(f"the other ended with {worse.status}: {worse.err.strip()[-200:]}")
    faults += [f"orphan: {command[:80]}" for command in both[1].orphans()]
    outcome = examined(lab, home, stage, both[0], worse, again=False)
    return Outcome(outcome.status, outcome.said, faults + outcome.faults)


# -- disks -------------------------------------------------------------------------------------------------------------


def can_mount() -> bool:
    """Whether file systems can be mounted here."""
    return os.geteuid() == 0 and shutil.which("mount") is not None


@contextmanager
def mounted(folder: Path, *words: str) -> Iterator[None]:
    """Something mounted on a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *words, str(folder)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def full_disk(lab: Lab, stage: str, draw: random.Random) -> Outcome:
    """The home's disk (a tmpfs) is full at a random moment of the stage; room is made, then the run goes on."""
    folder = lab.folder / f"full.{draw.getrandbits(32):08x}"
    with mounted(folder, "-t", "tmpfs", "-o", "size=256m", "none"):
        home = lab.before(stage, folder / "home")
        alive = lab.start(home, "--only", stage)
        alive.until(lambda: lab.is_at(home, stage))
        time.sleep(draw.uniform(0, lab.seconds[stage] / 2))
        ballast = folder / "ballast"
        with ballast.open("wb", buffering=0) as sink:
            try:
                while True:
                    sink.write(bytes(1 << 16))
            except OSError:
                pass
        ended = alive.end()
        ballast.unlink()
        return examined(lab, home, stage, alive, ended)


def read_only(lab: Lab, stage: str, draw: random.Random) -> Outcome:
    """The store is read-only when the stage begins; it is made writable, then the run goes on."""
    home = lab.before(stage)
    store = home / "store"
    with mounted(store, "--bind", str(store)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(store)], check=True, capture_output=True)
        alive = lab.start(home, "--only", stage)
        ended = alive.end()
    outcome = examined(lab, home, stage, alive, ended)
    faults = [] if ended.status == 2 and ended.error else [f"ended with {ended.status}, without its one line"]
    return Outcome(outcome.status, outcome.said, faults + outcome.faults)


# -- what is on disk ---------------------------------------------------------------------------------------------------


def delete(path: Path, draw: random.Random) -> None:
    """The file is gone."""
    path.unlink()


def truncate(path: Path, draw: random.Random) -> None:
    """The file lost its end."""
    os.truncate(path, draw.randrange(path.stat().st_size))


def flip(path: Path, draw: random.Random) -> None:
    """One bit of the file is another."""
    raw = bytearray(path.read_bytes())
    raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    path.write_bytes(raw)


def harmed(
    harm: Callable[[Path, random.Random], None], *, manifest: bool
) -> Callable[[Lab, str, random.Random], Outcome]:
    """A fault that harms a file of a finished artifact."""

    def fault(lab: Lab, stage: str, draw: random.Random) -> Outcome:
        home = lab.folder / f"home.{draw.getrandbits(32):08x}"
        shutil.copytree(lab.undisturbed, home, symlinks=True)
        part = part_of(home, lab.run, stage)
        kind = (home / lab.run / road.STAGES[stage].makes).resolve()
        harm(kind / MANIFEST if manifest else part, draw)
        alive = lab.start(home, "--only", stage)
        return examined(lab, home, stage, alive, alive.end(), again=False)

    return fault


def changed_inputs(lab: Lab, stage: str, draw: random.Random) -> Outcome:
    """The artifacts a finished stage was made of are others, of a world with one more picture; then the old."""
    other = _other(lab)
    home = lab.folder / f"home.{draw.getrandbits(32):08x}"
    shutil.copytree(lab.undisturbed, home, symlinks=True)
    shutil.copytree(other.undisturbed / "store", home / "store", symlinks=True, dirs_exist_ok=True)
    makes, needs = road.STAGES[stage].makes, road.STAGES[stage].needs
    wanted = (other.undisturbed / other.run / makes).resolve().name
    shutil.rmtree(home / "store" / makes / wanted)
    faults = []
    for source in (other, lab):
        store = Store(home)
        for kind in needs:
            found = store.find(kind, (source.undisturbed / source.run / kind).resolve().name)
            assert found is not None, kind
            store.link(lab.run, found)
        if source is other:
            ended = lab.start(home, "--only", stage).end()
            if (made := (home / lab.run / makes).resolve().name) != wanted:
                faults.append(f"ended with {ended.status} and holds {made}; its inputs lead to {wanted}")
            faults += [f"differs from a run of those inputs: {name}" for name in other.differing_of(home, [stage])]
    alive = lab.start(home, "--only", stage)
    outcome = examined(lab, home, stage, alive, alive.end(), again=False)
    return Outcome(outcome.status, outcome.said, faults + outcome.faults)


def _other(lab: Lab) -> Lab:
    """The lab of the same recipe with one more picture."""
    settings = yaml.safe_load(lab.recipe.read_text())
    settings["ingest"]["world"]["pictures"] += 1
    folder = lab.folder / "other"
    other = Lab(folder, folder / lab.recipe.name, WITHOUT_PREFECT)
    if not (other.undisturbed / other.run / "report").exists():
        folder.mkdir(exist_ok=True)
        other.recipe.write_text(yaml.safe_dump(settings))
        other.prepare()
    return other


def clock(lab: Lab, stage: str, draw: random.Random) -> Outcome:
    """The clock was a century ahead when the artifacts were made: all of them are taken as they are."""
    home = lab.folder / f"home.{draw.getrandbits(32):08x}"
    shutil.copytree(lab.undisturbed, home, symlinks=True)
    for path in home.rglob("*"):
        if path.is_file() and not path.is_symlink():
            if path.name == MANIFEST:
                told = Manifest.model_validate_json(path.read_bytes())
                later = {name: getattr(told, name).replace("20", "21", 1) for name in ("started", "finished")}
                path.write_text(told.model_copy(update=later).sealed().model_dump_json(indent=1))
            os.utime(path, (time.time() + 3e8,) * 2)
    made = part_of(home, lab.run, stage).stat().st_ino
    alive = lab.start(home, "--only", stage)
    ended = alive.end()
    faults = [] if part_of(home, lab.run, stage).stat().st_ino == made else ["made again"]
    faults += [] if " made " not in ended.out else ["said to be made"]
    outcome = examined(lab, home, stage, alive, ended, again=False)
    return Outcome(outcome.status, outcome.said, faults + outcome.faults)


FAULTS: dict[str, Callable[[Lab, str, random.Random], Outcome]] = {
    "kill -9 of the run": kill,
    "SIGTERM": terminate,
    "Ctrl-C": interrupt,
    "kill -9 of Prefect's embedded server": lose_server,
    "kill -9, then the home is moved": kill_then_move,
    "two runs of one recipe at once": twice,
    "full disk": full_disk,
    "read-only store": read_only,
    "file of the artifact deleted": harmed(delete, manifest=False),
    "file truncated": harmed(truncate, manifest=False),
    "one bit flipped": harmed(flip, manifest=False),
    "manifest deleted": harmed(delete, manifest=True),
    "manifest truncated": harmed(truncate, manifest=True),
    "one bit of the manifest flipped": harmed(flip, manifest=True),
    "other inputs under a cached stage": changed_inputs,
    "clock a century ahead, then back": clock,
}
OF_PROCESSES = (
    "kill -9 of the run",
    "SIGTERM",
    "Ctrl-C",
    "kill -9 of Prefect's embedded server",
    "two runs of one recipe at once",
)
"""Faults tried on `degla run` with its server; the others are the same with and without."""
AT_RANDOM = (*OF_PROCESSES, "kill -9, then the home is moved", "full disk")
OF_INPUTS = ("other inputs under a cached stage",)
"""Not for a stage without inputs; that a changed source is noticed is in tests/pipeline/test_run.py."""
NEED_MOUNTS = ("full disk", "read-only store")
