"""Every image here is a real file made by Pillow, or damaged by hand."""

import io
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pipeline.clip import read_picture
from pipeline.errors import UserError
from stages.images import examine

SCENE = Image.effect_mandelbrot((48, 32), (-2, -1.5, 1, 1.5), 60)


def saved(image: Image.Image, kind: str, **how: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(SCENE.convert("RGB"), "JPEG", exif=exif)


def bomb() -> bytes:
    """A PNG of a few hundred bytes whose header promises 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )


RGB = SCENE.convert("RGB")
GOOD: dict[str, Callable[[], bytes]] = {
    "cmyk.jpg": lambda: saved(RGB.convert("CMYK"), "JPEG", quality=95),
    "rgba.png": lambda: saved(RGB.convert("RGBA"), "PNG"),
    "palette.png": lambda: saved(RGB.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
    "palette_transparent.gif": lambda: saved(RGB.convert("P", palette=Image.Palette.ADAPTIVE), "GIF", transparency=0),
    "grey.jpg": lambda: saved(SCENE, "JPEG"),
    "bits.png": lambda: saved(SCENE.convert("1"), "PNG"),
    "animated.gif": lambda: saved(SCENE, "GIF", save_all=True, append_images=[Image.new("L", SCENE.size)], duration=50),
    "animated.webp": lambda: saved(
        RGB, "WEBP", save_all=True, append_images=[Image.new("RGB", SCENE.size)], lossless=True
    ),
    "animated.png": lambda: saved(RGB, "PNG", save_all=True, append_images=[Image.new("RGB", SCENE.size)]),
    "no_suffix": lambda: saved(RGB, "PNG"),
    "wrong_suffix.png": lambda: saved(RGB, "JPEG", quality=95),
}
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty.jpg": (lambda: b"", "image_empty"),
    "text.jpg": (lambda: b"<html>404</html>", "image_unreadable"),
    "truncated.jpg": (lambda: saved(RGB, "JPEG", quality=95)[:-400], "image_unreadable"),
    "truncated.png": (lambda: saved(RGB, "PNG")[:-200], "image_unreadable"),
    "head_only.jpg": (lambda: saved(RGB, "JPEG")[:20], "image_unreadable"),
    "bomb.png": (bomb, "image_too_large"),
    "grey16.png": (lambda: saved(Image.new("I;16", (8, 8), 30_000), "PNG"), "image_depth"),
    "grey32.tif": (lambda: saved(Image.new("I", (8, 8), 70_000), "TIFF"), "image_depth"),
    "float.tif": (lambda: saved(Image.new("F", (8, 8), 0.5), "TIFF"), "image_depth"),
}


@pytest.mark.parametrize("name", GOOD)
def test_images_of_every_kind_are_read_as_training_reads_them(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(GOOD[name]())
    (tmp_path / "plain.png").write_bytes(saved(RGB, "PNG"))
    facts, plain = examine(tmp_path, name), examine(tmp_path, "plain.png")
    assert facts.reason is None and (facts.width, facts.height) == SCENE.size == read_picture(tmp_path / name).size
    if name != "bits.png":
        assert (facts.phash ^ plain.phash).bit_count() <= 3, "it looks like the first frame, upright, in colour"


@pytest.mark.parametrize("name", BAD)
def test_every_kind_of_trouble_has_its_reason(tmp_path: Path, name: str) -> None:
    make, reason = BAD[name]
    (tmp_path / name).write_bytes(make())
    facts = examine(tmp_path, name)
    assert facts.reason == reason and facts.detail and not facts.sha256


def test_a_turned_image_stands_upright(tmp_path: Path) -> None:
    (tmp_path / "r.jpg").write_bytes(rotated())
    (tmp_path / "u.png").write_bytes(saved(RGB.transpose(Image.Transpose.ROTATE_270), "PNG"))
    turned, upright = examine(tmp_path, "r.jpg"), examine(tmp_path, "u.png")
    assert (turned.width, turned.height) == (32, 48) == (upright.width, upright.height)
    assert (turned.phash ^ upright.phash).bit_count() <= 3


def test_the_limit_is_the_callers(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(saved(RGB, "PNG"))
    assert examine(tmp_path, "a.png", max_pixels=48 * 32).reason is None
    too_large = examine(tmp_path, "a.png", max_pixels=48 * 32 - 1)
    assert (too_large.reason, too_large.detail) == ("image_too_large", "48 x 32 pixels")


def test_nothing_outside_the_folder_is_opened(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.png").write_bytes(saved(RGB, "PNG"))
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "secret.png")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png", ""):
        assert examine(tmp_path / "in", name).reason == "image_outside"


@pytest.mark.skipif(sys.platform != "linux", reason="reads a file whose first byte is an I/O error")
def test_a_disk_that_does_not_answer_is_no_fault_of_the_image() -> None:
    with pytest.raises(OSError, match="Input/output error"):
        examine(Path("/proc/self"), "mem")


@pytest.mark.parametrize("name", ["../x.png", "/etc/hostname", "a\0b", "\ud800", "a" * 300, "", "link.png", "loop.png"])
def test_a_hostile_name_is_a_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "x.png").write_bytes(saved(SCENE.convert("RGB"), "PNG"))
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "x.png")
    (tmp_path / "images" / "loop.png").symlink_to("loop.png")
    assert examine(tmp_path / "images", name).reason in ("image_outside", "image_missing")


def test_no_program_is_started_for_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands PostScript to Ghostscript, whatever the file is called."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    lines = "%!PS-Adobe-3.0 EPSF-3.0", "%%BoundingBox: 0 0 9 9", "%%EndComments", "showpage", "%%EOF", ""
    (tmp_path / "a.jpg").write_text("\n".join(lines))
    assert examine(tmp_path, "a.jpg").reason == "image_unreadable"
    with pytest.raises(UserError):
        read_picture(tmp_path / "a.jpg")
    assert not (tmp_path / "ran").exists()
