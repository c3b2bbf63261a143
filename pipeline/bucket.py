"""A home in object storage: `$DEGLA_HOME=s3://bucket/folder`, or another address that pyarrow's file systems know.

Work is done in a cache on the local disk ($DEGLA_CACHE, default ~/.cache/degla). What is finished goes to the bucket
and comes from there where it is not here:

    <run>/recipe.yaml                                   as in a local home
    <run>/history.jsonl                                 as in a local home
    <run>/<kind>                                        the fingerprint that the run links to, as text
    store/<kind>/<fingerprint>/manifest.json            written last; two writers never mix their files, because
    store/<kind>/<fingerprint>/<digest of manifest>/    these lie in a folder of their own
    store/<kind>/<fingerprint>.partial/                 checkpoints of a training at work
    replies/                                            as in a local home

Checkpoints and replies, which cost most, are sent every `INTERVAL` seconds, so another machine resumes from there when
this one is lost. The lock of an artifact holds on one machine only: two that make the same one both work, and the last
to finish is kept. Replies of the others are fetched as often, so machines that fill one run share its work.
"""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem, copy_files

from pipeline import tables
from pipeline.artifact import MANIFEST, SCRATCH, Artifact, Manifest, digest, verified
from pipeline.errors import TransientError, UserError
from pipeline.store import HISTORY, Store, entries

INTERVAL = 30.0
"""Seconds between two looks for what is to be sent."""

REFUSALS = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "not found", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH")
"""How Arrow's errors call what no second try can mend."""


class _Paid(NamedTuple):
    """Files that making an artifact adds and never changes; shared: others may add to them at the same time."""

    folder: Path
    pattern: str
    shared: bool


@dataclass(frozen=True)
class Bucket(Store):
    """A store whose truth is in object storage; `home` is the local cache of it."""

    filesystem: FileSystem
    root: str

    @classmethod
    def at(cls, address: str) -> "Bucket":
        """The store at an address. Raises UserError for one that no file system answers to."""
        try:
            filesystem, root = FileSystem.from_uri(address)
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                "store", f"cannot open {address}: {error}", "a folder, or an address such as s3://bucket/folder",
                "choose another home; keys are read from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ) from None  # fmt: skip
        cache = Path(os.environ.get("DEGLA_CACHE", "~/.cache/degla")).expanduser() / digest(address)
        return cls(cache.absolute(), filesystem, root.rstrip("/"))

    # -- artifacts ---------------------------------------------------------------------------------------------------

    def find(self, kind: str, fingerprint: str) -> Artifact | None:
        """As `Store.find`; fetched when only the bucket has it, sent when only the cache has it."""
        found = super().find(kind, fingerprint)
        if found is None:
            return self._fetch(kind, fingerprint)
        if self._read(f"{self._object(found.path)}/{MANIFEST}") is None:
            self._send(found)
        return found

    @contextmanager
    def build(self, kind: str, fingerprint: str) -> Iterator[Path]:
        """As `Store.build`; begins with what a lost machine sent; sends responses and checkpoints as they come."""
        with super().build(kind, fingerprint) as partial:
            paid = self._paid_for(kind, partial)
            if paid is None:
                yield partial
                return
            sent = self._receive(paid)
            ended = threading.Event()

            def watch() -> None:
                while not ended.wait(INTERVAL):
                    try:
                        self._send_new(paid, sent)
                        if paid.shared:
                            sent.update(self._receive(paid))
                    except TransientError:
                        continue  # what could not be sent now is new at the next look

            watching = threading.Thread(target=watch, daemon=True)
            watching.start()
            try:
                yield partial
            finally:
                ended.set()
                watching.join()
            self._send_new(paid, sent)

    def publish(self, partial: Path, *, manifest: Mapping[str, Any]) -> Artifact:
        """As `Store.publish`, and into the bucket."""
        made = super().publish(partial, manifest=manifest)
        self._send(made)
        with self._talking(), suppress(FileNotFoundError):
            self.filesystem.delete_dir(self._object(partial))
        return made

    def _paid_for(self, kind: str, partial: Path) -> _Paid | None:
        found = {
            "negatives": _Paid(self.home / "replies", "*/*/*.*", shared=True),
            "model": _Paid(partial / SCRATCH, "*.pt", shared=False),
        }
        return found.get(kind)

    def _send(self, artifact: Artifact) -> None:
        """Files first, the manifest that makes them an artifact last."""
        content = (artifact.path / MANIFEST).read_bytes()
        place = self._object(self.folder(artifact.manifest.kind, artifact.manifest.fingerprint))
        target = f"{place}/{_short(content)}"
        self._copy_out(artifact.path, target)
        self._write(f"{place}/{MANIFEST}", content)

    def _fetch(self, kind: str, fingerprint: str) -> Artifact | None:
        folder = self.folder(kind, fingerprint)
        content = self._read(f"{self._object(folder)}/{MANIFEST}")
        if content is None:
            return None
        arriving = folder.with_name(f"{fingerprint}.{uuid4().hex}.partial")
        arriving.mkdir(parents=True)
        self._copy_in(f"{self._object(folder)}/{_short(content)}", arriving)
        if folder.exists():
            shutil.rmtree(folder)
        arriving.replace(folder)
        return verified(folder, self.hashes.sha256)

    # -- what is paid for --------------------------------------------------------------------------------------------

    def _receive(self, paid: _Paid) -> set[Path]:
        """Fetch what the bucket has of these files and the cache has not; gives the files that need no sending."""
        folder = paid.folder
        with self._talking():
            selector = FileSelector(self._object(folder), allow_not_found=True, recursive=True)
            there = [one.path for one in self.filesystem.get_file_info(selector) if one.type == FileType.File]
        found = set()
        for path in there:
            here = folder / path.removeprefix(self._object(folder)).lstrip("/")
            if not here.exists():
                here.parent.mkdir(parents=True, exist_ok=True)
                unfinished = here.with_name(f".{here.name}.{uuid4().hex}.tmp")
                self._copy_in(path, unfinished)
                tables.commit_file(unfinished, here)
            found.add(here)
        return found & set(folder.glob(paid.pattern))

    def _send_new(self, paid: _Paid, sent: set[Path]) -> None:
        """Send files that are new since the last look, and remove those that are gone here."""
        present = {path for path in paid.folder.glob(paid.pattern) if not path.name.startswith(".")}
        for path in sorted(present - sent):
            with suppress(FileNotFoundError):  # an old checkpoint, gone meanwhile
                self._copy_out(path, self._object(path))
                sent.add(path)
        for path in sent - present:
            with self._talking(), suppress(FileNotFoundError):
                self.filesystem.delete_file(self._object(path))
        sent &= present

    # -- runs --------------------------------------------------------------------------------------------------------

    def runs(self) -> list[str]:
        """As `Store.runs`, of all machines."""
        with self._talking():
            selector = FileSelector(self.root, allow_not_found=True)
            found = [one.base_name for one in self.filesystem.get_file_info(selector) if one.type != FileType.File]
        return sorted(name for name in found if name != "store" and self.recipe(name))

    def recipe(self, run: str) -> Path | None:
        """As `Store.recipe`: what the bucket says."""
        content = self._read(f"{self._object(self.run(run))}/recipe.yaml")
        if content is None:
            return None
        super().keep_recipe(run, content.decode())
        return super().recipe(run)

    def keep_recipe(self, run: str, text: str) -> None:
        """As `Store.keep_recipe`, in both places."""
        super().keep_recipe(run, text)
        self._write(f"{self._object(self.run(run))}/recipe.yaml", text.encode())

    def linked(self, run: str, kind: str) -> Artifact | None:
        """As `Store.linked`: what the bucket says, fetched when it is not here."""
        fingerprint = self._read(f"{self._object(self.run(run))}/{kind}")
        found = None if fingerprint is None else self.find(kind, fingerprint.decode())
        if found is not None:
            super().link(run, found)
        return found

    def glance(self, run: str, kind: str) -> Artifact | None:
        """As `Store.glance`: what the bucket says; of the artifact only its manifest is fetched."""
        fingerprint = self._read(f"{self._object(self.run(run))}/{kind}")
        if fingerprint is None:
            return None
        manifest = self.manifest(kind, fingerprint.decode())
        return Artifact(self.folder(kind, manifest.fingerprint), manifest) if manifest else None

    def manifest(self, kind: str, fingerprint: str) -> Manifest | None:
        """As `Store.manifest`: what the bucket says; nothing else is fetched."""
        content = self._read(f"{self._object(self.folder(kind, fingerprint))}/{MANIFEST}")
        return None if content is None else Manifest.model_validate_json(content)

    def log(self, run: str, entry: Mapping[str, Any]) -> None:
        """As `Store.log`, in the bucket alone. Of two machines that write at the same moment, one line may be lost."""
        lines = (json.dumps(line) + "\n" for line in (*self.history(run), entry))
        self._write(f"{self._object(self.run(run))}/{HISTORY}", "".join(lines).encode())

    def history(self, run: str) -> list[dict[str, Any]]:
        """As `Store.history`: what the bucket says."""
        content = self._read(f"{self._object(self.run(run))}/{HISTORY}")
        return entries(content.decode()) if content else []

    def link(self, run: str, artifact: Artifact) -> None:
        """As `Store.link`, in both places."""
        super().link(run, artifact)
        kind, fingerprint = artifact.manifest.kind, artifact.manifest.fingerprint
        self._write(f"{self._object(self.run(run))}/{kind}", fingerprint.encode())

    # -- objects -----------------------------------------------------------------------------------------------------

    def _object(self, path: Path) -> str:
        """Where a path of the cache is in the bucket."""
        return f"{self.root}/{path.relative_to(self.home).as_posix()}"

    def _copy_out(self, path: Path, target: str) -> None:
        with self._talking():
            copy_files(str(path), target, source_filesystem=LocalFileSystem(), destination_filesystem=self.filesystem)

    def _copy_in(self, source: str, path: Path) -> None:
        with self._talking():
            copy_files(source, str(path), source_filesystem=self.filesystem, destination_filesystem=LocalFileSystem())

    def _read(self, path: str) -> bytes | None:
        with self._talking():
            try:
                with self.filesystem.open_input_stream(path) as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

    def _write(self, path: str, content: bytes) -> None:
        with self._talking(), self.filesystem.open_output_stream(path) as stream:
            stream.write(content)

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """Raise UserError where the bucket refuses, TransientError where it does not answer."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            said = str(error).splitlines()[0]
            if any(word in said for word in REFUSALS):
                raise UserError(
                    "store", f"{self.root}: {said}", "a bucket that these keys may read and write",
                    "choose another home, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                ) from None  # fmt: skip
            raise TransientError(f"store: {self.root}: {said}; run the same command again") from error


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
