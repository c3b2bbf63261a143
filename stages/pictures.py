"""What opening a picture tells: facts, or why it cannot be used."""

from pathlib import Path
from typing import NamedTuple

from pipeline.artifact import file_sha256


class Facts(NamedTuple):
    """Facts of one picture file; with a `reason` the rest is empty.

    Attributes:
        sha256: of the file.
        width: pixels, after EXIF rotation.
        height: pixels, after EXIF rotation.
        phash: perceptual hash (DCT of the upright picture, 64 bits); copies differ in few bits.
        reason: slug of what is wrong.
        detail: what was found.
    """

    sha256: str = ""
    width: int = 0
    height: int = 0
    phash: int = 0
    reason: str | None = None
    detail: str = ""


def examine(root: Path, name: str, *, max_pixels: int = 100_000_000) -> Facts:
    """Open and fully decode the picture `name` below `root`; whatever is wrong with it becomes a reason."""
    from imagehash import phash
    from PIL import Image, ImageOps

    path = root / name
    if not name or not path.resolve().is_relative_to(root.resolve()):
        return Facts(reason="image_outside", detail=f"{name!r} is not below the picture folder")
    if not path.is_file():
        return Facts(reason="image_missing", detail=f"no file {name}")
    try:
        with Image.open(path) as image:
            if image.width * image.height > max_pixels:
                return Facts(reason="image_too_large", detail=f"{image.width} x {image.height} pixels")
            image.load()
            upright = ImageOps.exif_transpose(image).convert("RGB")
        hashed = int(str(phash(upright.reduce(max(1, min(upright.size) // 256)))), 16)
        return Facts(file_sha256(path), upright.width, upright.height, hashed)
    except Exception as error:  # PIL raises almost anything on a hostile file; one bad picture must not stop a run
        return Facts(reason="image_unreadable", detail=f"{type(error).__name__}: {error}"[:200])
