"""Artifacts: folders with a manifest that says what they hold and what made them; and digests.

An artifact exists when its manifest does and every file in it has the recorded sha256. Cards do not count: they are for
people, decide nothing, and are written anew when more is known.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
MANIFEST = "manifest.json"
SCRATCH = ".work"


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
        """Digest of the content alone: two artifacts with equal files are equal inputs, whatever made them."""
        files = {name: sha256 for name, sha256 in self.manifest.files.items() if not _is_card(name)}
        return digest([self.manifest.kind, files])

    @property
    def meta(self) -> dict[str, Any]:
        """Facts the stage recorded."""
        return self.manifest.meta

    def table_folder(self, name: str) -> Path:
        """Folder of one of its tables, to hand to `pipeline.tables` or to DuckDB."""
        return self.path if name == self.manifest.kind else self.path / name

    def table(self, name: str = "", columns: list[str] | None = None) -> "pa.Table":
        """One of its tables whole, as Arrow (memory: the columns asked for); without a name its main one."""
        from pipeline import tables  # brings pyarrow and DuckDB, which most of an artifact does not need

        return tables.read(self.table_folder(name or self.manifest.kind), columns)


def digest(value: Any) -> str:
    """sha256 (16 hex digits) over canonical JSON."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def unit_interval(text: str) -> float:
    """A number in [0, 1) that is always the same for the same text: the first 48 bits of its sha256."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12


def file_sha256(path: Path | str) -> str:
    """sha256 of a file's bytes, hex."""
    with open(path, "rb") as handle:  # noqa: PTH123 - of thousands of files, where a Path costs as much as a stat
        return hashlib.file_digest(handle, "sha256").hexdigest()


class FileHashes:
    """sha256 of files, each read once as long as its path, size, time of change and inode stay the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int, int], str] = {}

    def sha256(self, path: str) -> str:
        """As `file_sha256`, from memory where the file was read before."""
        key = self._key(path)
        if key not in self._known:
            self._known[key] = file_sha256(path)
        return self._known[key]

    def remember(self, path: str, sha256: str) -> None:
        """Take over what is known of a file that was just written."""
        self._known[self._key(path)] = sha256

    @staticmethod
    def _key(path: str) -> tuple[str, int, int, int]:
        stat = os.stat(path)  # noqa: PTH116
        return path, stat.st_size, stat.st_mtime_ns, stat.st_ino


def path_digest(path: Path) -> str:
    """Digest of a file, or of all files below a folder with their names, by content. Hidden files do not count.

    Raises FileNotFoundError for a path that does not exist.
    """
    if not path.is_dir():
        return file_sha256(path)[:16]
    return digest({str(name): file_sha256(path / name) for name in content_files(path)})


def listing_digest(path: Path) -> str:
    """Digest of names, sizes and modification times, of a file or below a folder too large to read twice."""
    found = (
        {str(name): (path / name).stat() for name in content_files(path)} if path.is_dir() else {path.name: path.stat()}
    )
    return digest({name: [stat.st_size, stat.st_mtime_ns] for name, stat in found.items()})


def content_files(folder: Path) -> list[Path]:
    """Files below a folder, relative, in order; hidden ones are left out."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if not any(part.startswith(".") for part in name.parts))


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of an artifact's folder; None where there is none that can be read."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None


def verified(folder: Path, sha256: Callable[[str], str] | None = None) -> Artifact | None:
    """Read an artifact and check every file against its manifest; None when anything is missing or altered.

    Args:
        folder: the artifact's, or a link to it.
        sha256: gives a file's sha256; `FileHashes.sha256` reads each file once. Default: `file_sha256`.
    """
    sha256 = sha256 or file_sha256
    try:
        folder = folder.resolve()
        manifest = read_manifest(folder)
        intact = (
            manifest is not None
            and manifest.format == FORMAT
            and manifest.seal in ("", manifest.sealed().seal)
            and all(
                _is_below(name) and (_is_card(name) or sha256(f"{folder}/{name}") == recorded)
                for name, recorded in manifest.files.items()
            )
        )
    except OSError:
        return None
    return Artifact(folder, manifest) if manifest and intact else None


def _is_card(name: str) -> bool:
    return name.startswith("card.")


def _is_below(name: str) -> bool:
    """Whether a manifest's file name stays in its folder."""
    return not (name.startswith("/") or ".." in name.split("/") or "\0" in name)


def now() -> str:
    """The time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
