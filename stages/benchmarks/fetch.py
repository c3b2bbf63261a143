"""Downloading a benchmark's files: on demand, resumed where it stopped, checked, and whole or not there.

A file arrives as `.<name>.part` beside its place, with the server's validator, so that what is resumed is a part of the
same content. Only what has the registry's checksum gets its name. An archive is kept until all of it is unpacked.
"""

import hashlib
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import IO

import httpx

from pipeline import tables
from pipeline.errors import UserError
from pipeline.stage import Progress, silent
from stages.benchmarks.registry import known

CHUNK = 1 << 20
TIMEOUT_SECONDS = 60
GITHUB = "https://raw.githubusercontent.com/"
BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, IndexError, OSError,
    RuntimeError, ValueError,
)  # fmt: skip
"""What unpacking raises; RuntimeError: it wants a password, or is packed in a way this Python does not know;
IndexError: a member without a name."""


@dataclass(frozen=True)
class File:
    """Something that can be downloaded.

    Attributes:
        path: what is there afterwards, a file or what an archive is unpacked to.
        url: where it is from.
        mirror: a second address, asked when the first gives nothing; None = there is none.
        checksum: (algorithm, hex digest) of what is downloaded; None = not known.
        into: folder an archive is unpacked into; None = no archive.
        strip: leading folders left off the archive's members.
        only: pattern of the members that are wanted, after stripping; * crosses folders.
        images: it holds images, and is large.
    """

    path: Path
    url: str
    checksum: tuple[str, str] | None = None
    into: Path | None = None
    strip: int = 0
    only: str = "*"
    images: bool = False
    mirror: str | None = None

    @property
    def download(self) -> Path:
        """Where the bytes go."""
        return self.into / f".{PurePosixPath(self.url).name}" if self.into else self.path

    @property
    def part(self) -> Path:
        """The bytes there are so far."""
        return self.download.with_name(f".{self.download.name.lstrip('.')}.part")

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do, unchecked."""
        return self.path.exists() and not (self.into and self.download.exists())


def files(name: str, root: Path) -> list[File]:
    """What can be downloaded of a benchmark, by the registry."""
    found = []
    for one in known(name).get("files", ()):
        unpack = one.get("unpack", {})
        checksum = next(((kind, one[kind]) for kind in ("sha256", "md5") if kind in one), None)
        into = root / name / unpack["into"] if unpack else None
        rest = {key: unpack[key] for key in ("strip", "only") if key in unpack}
        mirror, images = one.get("mirror") or _mirror(one["url"]), one.get("pictures", False)
        found.append(File(root / name / one["path"], one["url"], checksum, into, images=images, mirror=mirror, **rest))
    return found


def _mirror(url: str) -> str | None:
    """jsDelivr's address of a file of a GitHub repository; None for another file."""
    if not url.startswith(GITHUB):
        return None
    owner, repository, commit, path = url.removeprefix(GITHUB).split("/", 3)
    return f"https://cdn.jsdelivr.net/gh/{owner}/{repository}@{commit}/{path}"


def check(path: Path, checksum: tuple[str, str] | None) -> None:
    """Raise UserError when a file does not have its checksum."""
    if checksum is None:
        return
    algorithm, expected = checksum
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, algorithm).hexdigest()
    if found != expected:
        raise UserError("data", f"{path} has {algorithm} {found}", expected, f"remove {path} and fetch it again")


def fetch(file: File, progress: Progress = silent) -> None:
    """Download one file, and unpack it if it is an archive; what is there already is kept.

    The mirror is asked when the first address does not answer, refuses, or gives something else; not when the
    connection breaks, because the same command then goes on from there.

    Raises:
        UserError: no server gives it, the connection breaks, the checksum is another one (what came is then removed),
            or an archive would write outside its folder.
    """
    if file.is_complete:
        return
    if not (file.into and file.download.exists()):
        try:
            file.download.parent.mkdir(parents=True, exist_ok=True)
            _from_either(file, progress)
        except OSError as error:
            raise UserError(
                "data", f"{file.part} cannot be written: {error}", "room, and leave to write", "the same command"
            ) from error
        tables.commit_file(file.part, file.download)
    if file.into:
        _unpack(file, progress)


def _from_either(file: File, progress: Progress) -> None:
    """Fill `file.part` from the first address, or from the mirror."""
    try:
        _checked(file, progress)
    except _NothingError as first:
        if not file.mirror:
            raise
        try:
            _checked(replace(file, url=file.mirror), progress)
        except UserError as second:
            raise UserError("data", f"{first.what}; {second.what}", second.expected, second.fix) from first


class _NothingError(UserError):
    """An address gave nothing that could be resumed."""


def _checked(file: File, progress: Progress) -> None:
    try:
        _download(file, progress)
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise _NothingError(
            "data", f"{file.url} does not answer: {error!r}", "an answer", "the same command"
        ) from error
    except httpx.HTTPError as error:
        raise UserError(
            "data", f"{file.url} broke off: {error!r}", "an answer", "the same command; it resumes from there"
        ) from error
    try:
        check(file.part, file.checksum)
    except UserError as error:
        file.part.unlink()
        what = f"{file.url} {error.what.removeprefix(f'{file.part} ')}"
        raise _NothingError("data", what, error.expected, "the same command") from None


def _download(file: File, progress: Progress) -> None:
    validator = file.part.with_suffix(".validator")
    known = validator.read_text() if validator.exists() else ""
    start = file.part.stat().st_size if file.part.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if start and known:
        headers |= {"Range": f"bytes={start}-", "If-Range": known}
    with httpx.stream("GET", file.url, headers=headers, follow_redirects=True, timeout=TIMEOUT_SECONDS) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            # All of it came, or more than there is; the checksum will tell where there is one.
            if answer.headers.get("Content-Range") == f"bytes */{start}":
                validator.unlink()
                return
            file.part.unlink()
        if answer.is_error:
            raise _NothingError("data", f"{file.url} answers {answer.status_code}", "the file", "see `degla data list`")
        resumed = answer.status_code == httpx.codes.PARTIAL_CONTENT
        if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise UserError("data", f"{file.url} sent another part than asked", f"bytes from {start}", "try again")
        done = start if resumed else 0
        total = done + int(answer.headers.get("Content-Length", 0))
        with file.part.open("ab" if resumed else "wb") as handle:
            if not resumed:  # after the old bytes are gone, or a kill in between would name them as the new content
                _remember(validator, answer.headers)
            for piece in answer.iter_raw():
                handle.write(piece)
                done += len(piece)
                progress(f"bytes of {file.download.name.lstrip('.')}", done, max(total, done))
    validator.unlink(missing_ok=True)


def _remember(validator: Path, headers: httpx.Headers) -> None:
    """Keep what names this version of the content; without it nothing is resumed."""
    etag = headers.get("ETag", "")
    strong = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")
    if strong.isascii() and strong:
        tables.write_text(validator, strong)
    else:
        validator.unlink(missing_ok=True)


# -- archives ----------------------------------------------------------------------------------------------------------


def _unpack(file: File, progress: Progress) -> None:
    assert file.into is not None
    try:
        for done, (name, content) in enumerate(_members(file.download), 1):
            parts = PurePosixPath(name).parts
            if name.startswith("/") or ".." in parts or "\\" in name:
                raise UserError("data", f"{file.url} holds {name!r}", "members below one folder", "do not use it")
            kept = PurePosixPath(*parts[file.strip :])
            if kept.parts and fnmatch(str(kept), file.only):
                target = file.into / kept
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as handle:
                    shutil.copyfileobj(content, handle, CHUNK)
                progress(f"files of {file.download.name.lstrip('.')}", done, done)
    except BROKEN as error:
        raise UserError(
            "data", f"{file.download} cannot be unpacked: {error!r}", "a whole archive", f"remove {file.download}"
        ) from error
    if not file.path.exists():
        raise UserError(
            "data", f"{file.url} holds no {file.path.name}", "the benchmark's archive", "see `degla data list`"
        )
    file.download.unlink()


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of the regular files of a zip or tar archive; links and devices are left out."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                if not info.is_dir():
                    with packed.open(info) as content:
                        yield info.filename, content
        return
    with tarfile.open(archive) as opened:
        for member in opened:
            if member.isreg() and (inside := opened.extractfile(member)):
                yield member.name, inside
