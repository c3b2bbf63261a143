"""Where faults are tried: an undisturbed run to compare with, copies of it to hurt, real processes to hurt them with.

Every process started here carries a mark in its environment, which its children inherit, so what it leaves behind can
be found wherever it is.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from pipeline import tables
from pipeline.artifact import MANIFEST, file_sha256, verified
from stages import road
from tests.paths import ROOT

MARK = "DEGLA_CHAOS"
WITHOUT_PREFECT = (sys.executable, "-m", "tests.chaos.walk")
STAGES = list(road.STAGES)


class Ended(NamedTuple):
    """How a process ended and what it said."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of a user's error; whatever else came is not one."""
        lines = [line for line in self.err.splitlines() if "; expected " in line and "; fix: " in line]
        return lines[-1] if lines and "Traceback" not in self.err else ""


class Alive:
    """A process in a session of its own."""

    def __init__(self, command: Sequence[str], folder: Path, **environment: str) -> None:
        self._mark = uuid4().hex
        self.said = folder / f"said.{self._mark}"
        self.said.mkdir(parents=True)
        with (self.said / "out").open("wb") as out, (self.said / "err").open("wb") as err:
            self.process = subprocess.Popen(
                list(command),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                # Who runs in the background of a script ignores Ctrl-C, and so would its children.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                env=os.environ | {MARK: self._mark, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment,
            )

    def until(self, happened: Callable[[], object], patience: float = 300) -> bool:
        """Wait until something happened; False when the process ended, or the patience did, before that."""
        deadline = time.monotonic() + patience
        while not happened():
            if self.process.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def signal(self, number: int) -> None:
        """Send a signal to the whole process group."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def end(self, patience: float = 600) -> Ended:
        """Wait for its end."""
        try:
            status = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait()
            status = -1000
        return Ended(status, *((self.said / name).read_text(errors="replace") for name in ("out", "err")))

    def family(self) -> dict[int, str]:
        """Living processes that carry the mark: process id -> command."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                is_ours = f"{MARK}={self._mark}".encode() in (folder / "environ").read_bytes()
                if is_ours and (folder / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
        return found

    def orphans(self, patience: float = 30) -> list[str]:
        """Commands of what is still alive some time after the process itself ended; they are ended now."""
        deadline = time.monotonic() + patience
        while (left := self.family()) and time.monotonic() < deadline:
            time.sleep(0.1)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return list(left.values())


@dataclass
class Lab:
    """A folder with the undisturbed home of one recipe.

    Attributes:
        folder: everything stays below it.
        recipe: a YAML file; the run has its name.
        command: what runs it; the recipe and more words follow.
        seconds: how long each stage took in the undisturbed run.
    """

    folder: Path
    recipe: Path
    command: Sequence[str]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def run(self) -> str:
        """Name of the run."""
        return self.recipe.stem

    @property
    def undisturbed(self) -> Path:
        """The home that nothing happened to."""
        return self.folder / "undisturbed"

    def start(self, home: Path, *words: str, **environment: str) -> Alive:
        """Run the recipe in a home."""
        if self.command == WITHOUT_PREFECT:
            words = (str(home), *(word for word in words if not word.startswith("--")))
        command = (*self.command, str(self.recipe), *words)
        return Alive(command, self.folder / "said", DEGLA_HOME=str(home), **environment)

    def prepare(self) -> None:
        """Make the undisturbed home, and measure the stages."""
        begun: dict[str, float] = {}
        alive = self.start(self.undisturbed)
        while alive.process.poll() is None:
            for name in STAGES:
                if name not in begun and self.is_at(self.undisturbed, name):
                    begun[name] = time.monotonic()
                elif name in begun and name not in self.seconds and self.is_past(self.undisturbed, name):
                    self.seconds[name] = time.monotonic() - begun[name]
            time.sleep(0.005)
        ended = alive.end()
        assert ended.status == 0, ended.err
        for name in STAGES:
            self.seconds.setdefault(name, 0.05)  # too short to be seen

    def is_at(self, home: Path, stage: str) -> bool:
        """Whether the stage has begun to write."""
        return any((home / "store" / road.STAGES[stage].makes).glob("*.partial")) or self.is_past(home, stage)

    def is_past(self, home: Path, stage: str) -> bool:
        """Whether its artifact is linked into the run."""
        return (home / self.run / road.STAGES[stage].makes).exists()

    def before(self, stage: str, where: Path | None = None) -> Path:
        """A copy of the undisturbed home as it was before that stage began."""
        home = where or self.folder / f"home.{uuid4().hex[:8]}"
        shutil.copytree(self.undisturbed, home, symlinks=True, dirs_exist_ok=where is not None)
        later = STAGES[STAGES.index(stage) :]
        for name in later:
            shutil.rmtree(home / "store" / road.STAGES[name].makes)
            (home / self.run / road.STAGES[name].makes).unlink()
        if "generate" in later:
            shutil.rmtree(home / "replies")
        return home

    def differing(self, home: Path, until: str = "report") -> list[str]:
        """Tables and weights, of the stages up to that one, whose bytes are not those of the undisturbed run."""
        return self.differing_of(home, STAGES[: STAGES.index(until) + 1])

    def differing_of(self, home: Path, stages: Sequence[str]) -> list[str]:
        """As `differing`, of these stages."""
        wanted, found = self._digests(self.undisturbed, stages), self._digests(home, stages)
        return sorted(name for name in wanted | found if wanted.get(name) != found.get(name))

    def _digests(self, home: Path, stages: Sequence[str]) -> dict[str, str]:
        found = {}
        for name in stages:
            kind = road.STAGES[name].makes
            folder = home / self.run / kind
            if kind == "report":  # tells times
                continue
            chosen = [*tables.files(folder), *folder.glob("pairs_rejected/*.parquet"), *folder.glob("leaks/*.parquet")]
            for path in [*chosen, *folder.rglob("*.safetensors")]:
                found[f"{kind}/{path.relative_to(folder)}"] = file_sha256(path)
        return found


def half_artifacts(home: Path) -> list[str]:
    """Folders of the store that pass for artifacts and are not whole."""
    manifests = home.glob(f"store/*/*/{MANIFEST}")
    return [str(path.parent) for path in manifests if path.parent.suffix != ".partial" and not verified(path.parent)]


def part_of(home: Path, run: str, stage: str) -> Path:
    """A file that matters of a stage's artifact: its first part, the model's weights, the report."""
    folder = (home / run / road.STAGES[stage].makes).resolve()
    chosen = [*tables.files(folder), folder / "student" / "open_clip_model.safetensors", folder / "report.md"]
    return next(path for path in chosen if path.exists())
