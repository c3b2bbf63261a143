"""Images as bytes, decoded and resized once, in files of the home that all trainings share and map into memory.

    $DEGLA_HOME/images/<how they are cut>/<which they are>.arrow

An image is known by the sha256 of its file, so runs and ablations share it whatever their captions. A file holds up to
`SHARD` images, uncompressed; it is absent or whole, so a kill costs those in hand. Trainings that start at once share
the decoding: each file is made by the one that holds its lock.

Shapes: N images, C channels, H, W pixels.
"""

import errno
import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Set
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import PIL
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import clip, tables
from pipeline.artifact import digest
from pipeline.clip import Clip
from pipeline.errors import UserError
from pipeline.stage import Progress
from stages.train import crops

SHARD = 256
"""Images of a file."""

Ints = NDArray[np.int64]


class Files(Protocol):
    """Image files: the folder they are below, their paths, and what ingest found of each, None if it did not see it."""

    @property
    def root(self) -> Path:
        """The folder."""

    @property
    def uris(self) -> list[str]:
        """Paths in it."""

    @property
    def sha256(self) -> list[str | None]:
        """Of each file."""


class Picture(NamedTuple):
    """One image: uint8 [H, W, C], and the width over the height that it had."""

    pixels: NDArray[np.uint8]
    aspect: float


class _Shard(NamedTuple):
    """What a file holds."""

    sha256: list[str]
    pixels: NDArray[np.uint8]
    aspect: NDArray[np.float64]
    how: dict[str, Any]


class Images:
    """Image number -> uint8 pixels as training cuts them: taken from the home after `keep`, else decoded when asked.

    Args:
        files: the image files.
        model: which says the size.
        crop: "center", as in evaluation, JPEGs decoded at a fitting scale; "random", the part that `crops` cut from.
    """

    def __init__(self, files: Files, model: Clip, crop: Literal["center", "random"] = "center") -> None:
        self.root, self.uris, self.crop = files.root, files.uris, crop
        settings, (height, width) = model.description["preprocess"], size_of(model)
        self.size = height, width
        self.shape = self.size if crop == "center" else (round(crops.ROOM * height), round(crops.ROOM * width))
        self._center = clip.crop(model)
        ways = {name: settings.get(name) for name in ("interpolation", "resize_mode")} if crop == "center" else {}
        self._how = {"crop": crop, "shape": self.shape, "size": self.size, **ways, "pillow": PIL.__version__}
        self._sha256 = files.sha256
        self._kept: list[Path] = []
        self._open: dict[Path, _Shard] = {}
        self._shard = self._row = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.uris)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}  # another process maps the files itself

    @property
    def are_kept(self) -> bool:
        """Whether all of them come from the home."""
        return bool(self._kept)

    @property
    def nbytes(self) -> int:
        """What all of them take, bytes."""
        return len(self) * self._each

    def __getitem__(self, number: int) -> Tensor:
        """uint8 [C, H, W]."""
        return torch.from_numpy(np.array(self._picture(number).pixels)).permute(2, 0, 1)

    def stack(self, numbers: Ints) -> tuple[Tensor, NDArray[np.float64]]:
        """uint8 [N, C, H, W], channels last in memory, and width over height of each image."""
        pixels_NHWC = np.empty((len(numbers), *self.shape, 3), dtype=np.uint8)
        aspect_N = np.ones(len(numbers))
        for place, number in enumerate(numbers):
            pixels_NHWC[place], aspect_N[place] = self._picture(number)
        return torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2), aspect_N

    def keep(self, home: Path, threads: int, progress: Progress) -> None:
        """Decode those the home lacks, `threads` at once, and take all of them from there.

        Raises UserError for an image that cannot be read or is not what ingest saw, and for a disk without room.
        """
        folder = home / "images" / digest(self._how)
        with ThreadPoolExecutor(threads) as pool:
            sha256 = list(pool.map(self._content, range(len(self))))
        self._open = _all(folder)
        for wait in (False, True):  # first what nobody makes, then what another training was making
            lacking = _lacking(sha256, _places(self._open))
            if not lacking:
                break
            if not wait:
                self._check_room(folder, sum(map(len, lacking)))
            self._make(folder, lacking, sha256, threads, wait, progress)
            self._open = _all(folder)
        found = _places(self._open)
        self._kept = sorted({found[key][0] for key in sha256})
        number_of = {path: number for number, path in enumerate(self._kept)}
        self._shard = np.array([number_of[found[key][0]] for key in sha256])
        self._row = np.array([found[key][1] for key in sha256])

    # -- one image -----------------------------------------------------------------------------------------------------

    @property
    def _each(self) -> int:
        return int(np.prod(self.shape)) * 3

    def _picture(self, number: int) -> Picture:
        if not self._kept:
            return self._decoded(number)
        path, row = self._kept[self._shard[number]], self._row[number]
        if path not in self._open:
            self._open[path] = _read(path)
        shard = self._open[path]
        return Picture(shard.pixels[row], shard.aspect[row])

    def _decoded(self, number: int, content: bytes | None = None) -> Picture:
        path = self.root / self.uris[number]
        picture = clip.read_picture(path, max(self.size) if self.crop == "center" else None, content)
        aspect = picture.width / picture.height
        if self.crop == "center":
            return Picture(self._center(picture).permute(1, 2, 0).numpy(), aspect)
        height, width = self.shape
        reached = picture.resize((width, height), PIL.Image.Resampling.BICUBIC, crops.reach(*picture.size))
        return Picture(np.asarray(reached), aspect)

    def _content(self, number: int) -> str:
        """sha256 of an image's file."""
        return self._sha256[number] or hashlib.sha256(self._bytes(number)).hexdigest()

    def _bytes(self, number: int) -> bytes:
        path = self.root / self.uris[number]
        try:
            return path.read_bytes()
        except OSError as error:
            fix = "repair it, or run ingest again"
            raise UserError("images", f"cannot read {path}: {error}", "a whole image file", fix) from error

    # -- a file of them ------------------------------------------------------------------------------------------------

    def _make(
        self, folder: Path, shards: list[Ints], sha256: list[str], threads: int, wait: bool, progress: Progress
    ) -> None:
        """Make the files with these images that no other process is making, or `wait` for it."""
        done, total = len(self) - sum(map(len, shards)), len(self)
        pool = ThreadPoolExecutor(threads)
        try:
            ahead = {pool.submit(self._write, folder, shard, sha256, wait): len(shard) for shard in shards}
            for future in as_completed(ahead):
                future.result()
                done += ahead[future]
                progress("images decoded", done, total)
        finally:
            pool.shutdown(cancel_futures=True)

    def _write(self, folder: Path, numbers: Ints, sha256: list[str], wait: bool) -> None:
        keys = [sha256[number] for number in numbers]
        path = folder / f"{digest(keys)}.arrow"
        with _locked(path, wait) as mine:
            if not mine or path.exists():
                return
            pixels = np.empty((len(numbers), self._each), dtype=np.uint8)
            aspects = np.empty(len(numbers))
            for place, number in enumerate(numbers):
                content = self._bytes(number)
                if hashlib.sha256(content).hexdigest() != keys[place]:
                    what = f"{self.root / self.uris[number]} is not the file that ingest saw"
                    raise UserError("train", what, "images that stay as they are", "run ingest again")
                picture = self._decoded(number, content)
                pixels[place], aspects[place] = picture.pixels.reshape(-1), picture.aspect
            buffers = [None, pa.py_buffer(pixels)]
            column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(self._each), len(numbers), buffers)
            schema = pa.schema(
                [("sha256", pa.string()), ("aspect", pa.float64()), ("pixels", column.type)],
                {"how": json.dumps(self._how)},
            )
            table = pa.table([keys, aspects, column], schema=schema)
            try:
                with (
                    tables.replacing(path) as unfinished,
                    unfinished.open("wb") as target,
                    pa.ipc.new_file(target, schema) as file,
                ):
                    file.write_table(table)
            except OSError as error:
                with suppress(OSError):
                    unfinished.unlink(missing_ok=True)
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise self._no_room(folder) from None
                raise

    def _check_room(self, folder: Path, count: int) -> None:
        there = next(parent for parent in folder.parents if parent.exists())
        if shutil.disk_usage(there).free < count * self._each:
            raise self._no_room(folder)

    def _no_room(self, folder: Path) -> UserError:
        gigabytes = self.nbytes / 1e9
        return UserError(
            "train",
            f"no room in {folder.parent} for {len(self):,} images, decoded once: {gigabytes:.1f} GB in all",
            "room on that disk",
            "degla gc, or --set train.cache_mb=0 to decode them in every epoch",
        )


def unused(home: Path, wanted: Set[str]) -> Iterator[tuple[Path, str]]:
    """Files that hold none of the `wanted` images (sha256 of their files), or were decoded by another Pillow, and why.

    Also what is left of a file whose maker died.
    """
    for path in sorted((home / "images").glob("*/*.arrow")):
        shard = _read(path)
        if shard.how["pillow"] != PIL.__version__:
            yield path, "images decoded by another version of Pillow"
        elif wanted.isdisjoint(shard.sha256):
            yield path, "decoded images that no run's pairs hold"
    for lock in sorted((home / "images").glob("*/.*.lock")):
        with suppress(FileNotFoundError, BlockingIOError), lock.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in lock.parent.glob(f"{lock.stem}.*"):
                yield path, "left by a process that died while it decoded images"


def size_of(model: Clip) -> tuple[int, int]:
    """Height and width that a model reads."""
    size: Any = model.description["preprocess"]["size"]
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return int(height), int(width)


def _lacking(sha256: list[str], found: dict[str, tuple[Path, int]]) -> list[Ints]:
    """Numbers of the images that are not found, in files to be made; the same whichever of them are made first."""
    first = np.unique(np.array(sha256), return_index=True)[1]
    pieces = [np.sort(first)[start : start + SHARD] for start in range(0, len(first), SHARD)]
    left = (np.array([one for one in piece if sha256[one] not in found], dtype=np.int64) for piece in pieces)
    return [piece for piece in left if len(piece)]


def _all(folder: Path) -> dict[Path, _Shard]:
    """The files there are."""
    return {path: _read(path) for path in sorted(folder.glob("*.arrow"))}


def _places(shards: dict[Path, _Shard]) -> dict[str, tuple[Path, int]]:
    """sha256 of an image -> a file that holds it, and its row there."""
    return {key: (path, row) for path, shard in shards.items() for row, key in enumerate(shard.sha256)}


def _read(path: Path) -> _Shard:
    """A file's content; pixels are mapped and come into memory when they are looked at."""
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    how = json.loads(table.schema.metadata[b"how"])
    column = table["pixels"].chunk(0)
    pixels = np.frombuffer(column.buffers()[1], dtype=np.uint8).reshape(-1, *how["shape"], 3)[: len(column)]
    return _Shard(table["sha256"].to_pylist(), pixels, table["aspect"].to_numpy(), how)


@contextmanager
def _locked(path: Path, wait: bool) -> Iterator[bool]:
    """Whether this process is the one to make the file; the lock is the kernel's and dies with its owner."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.with_name(f".{path.stem}.lock")
    with name.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
        if path.exists():
            name.unlink(missing_ok=True)
