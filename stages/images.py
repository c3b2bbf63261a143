"""Image files: which suffixes they have, and what opening one tells: facts, or why it cannot be used."""

import hashlib
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from pipeline.clip import PICTURES, upright
from pipeline.errors import TRANSIENT_ERRNOS

SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in [
        *("jpg", "jpeg", "jfif", "png", "webp", "gif", "bmp"),
        *("tif", "tiff", "ppm", "pgm", "avif", "jp2", "img"),
    ]
)
"""By which an image is told from what lies beside it; what is in the file decides when it is opened."""


class ImageFacts(NamedTuple):
    """Facts of one image file; with a `reason` the rest is empty.

    Attributes:
        name: of the file below its folder, as it is spelled there.
        sha256: of the file.
        width: pixels, after EXIF rotation.
        height: pixels, after EXIF rotation.
        phash: perceptual hash (DCT of the upright image, 64 bits); copies differ in few bits.
        reason: slug of what is wrong.
        detail: what was found.
    """

    name: str = ""
    sha256: str = ""
    width: int = 0
    height: int = 0
    phash: int = 0
    reason: str | None = None
    detail: str = ""


DEEP = ("I", "F")
"""Modes of images with more than 8 bits a pixel in one channel: read as RGB they come out white."""


def examine(root: Path, name: str, *, max_pixels: int = 89_478_485) -> ImageFacts:
    """Open and fully decode the image `name` below `root`; whatever is wrong with it becomes a reason.

    Raises only the OSError of a disk or network that may answer in a moment, lest a good image be rejected for it.

    Turned upright by its EXIF tag, as RGB (CMYK and palettes converted, transparency laid aside, as CLIP's own
    preprocessing does); of an animation the first frame. The file is opened once. A name that is there only in another
    Unicode form is that file's: macOS writes "ü" in file names as two characters, tables have it as one.
    """
    from imagehash import phash
    from PIL import Image

    try:
        name = _spelled(root, name)
        path = root / name
        if not name or not path.resolve().is_relative_to(root.resolve()):
            return ImageFacts(reason="image_outside", detail=f"{name!r} is not below the picture folder")
        if not path.is_file():
            return ImageFacts(reason="image_missing", detail=f"no file {name}")
    except (ValueError, OSError, RuntimeError) as error:  # a null character, a name too long, a link to itself
        if isinstance(error, OSError) and error.errno in TRANSIENT_ERRNOS:
            raise
        return ImageFacts(reason="image_missing", detail=f"no file can have the name {name[:80]!r}: {error}"[:200])
    try:
        with path.open("rb") as handle:
            sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
            if not handle.tell():
                return ImageFacts(reason="image_empty", detail="the file has no byte")
            handle.seek(0)
            with Image.open(handle, formats=PICTURES) as image:
                if image.width * image.height > max_pixels:
                    return ImageFacts(reason="image_too_large", detail=f"{image.width} x {image.height} pixels")
                if image.mode.split(";")[0] in DEEP:
                    return ImageFacts(
                        reason="image_depth", detail=f"mode {image.mode}: save it with 8 bits per channel"
                    )
                whole = upright(image)
        hashed = int(str(phash(whole.reduce(max(1, min(whole.size) // 256)))), 16)
        return ImageFacts(name, sha256, whole.width, whole.height, hashed)
    except Image.DecompressionBombError as error:
        return ImageFacts(reason="image_too_large", detail=str(error)[:200])
    except Exception as error:  # PIL raises almost anything on a hostile file; one bad image must not stop a run
        if isinstance(error, OSError) and error.errno in TRANSIENT_ERRNOS:
            raise
        return ImageFacts(reason="image_unreadable", detail=f"{type(error).__name__}: {error}"[:200])


def _spelled(root: Path, name: str) -> str:
    """The name of what is there: as given, composed (NFC) or decomposed (NFD), whole or part by part; else as given."""
    if name.isascii():
        return name
    mixed = Path()
    for part in Path(name).parts:
        mixed /= next((form for form in _forms(part) if (root / mixed / form).exists()), part)
    return next((form for form in (*_forms(name), str(mixed)) if (root / form).exists()), name)


def _forms(name: str) -> tuple[str, str, str]:
    return name, normalize("NFC", name), normalize("NFD", name)
