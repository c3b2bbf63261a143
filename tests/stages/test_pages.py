"""Pages: one way to write a number, text from data stays text, an image becomes a link that holds it."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from pipeline.errors import UserError
from stages.pages import changed_words, markdown, percent, render, signed, thumbnail


@pytest.mark.parametrize(
    ("share", "written"),
    [(None, "–"), (0.0, "0.0"), (-0.0, "0.0"), (-0.0004, "0.0"), (0.12345, "12.3"), (1.0, "100.0"), (-0.021, "−2.1")],
)
def test_a_share_is_per_cent_with_one_decimal(share: float | None, written: str) -> None:
    assert percent(share) == written


@pytest.mark.parametrize(
    ("share", "written"),
    [(None, "–"), (0.0, "0.0"), (-0.0, "0.0"), (0.0004, "0.0"), (-0.0004, "0.0"), (0.014, "+1.4"), (-0.03, "−3.0")],
)
def test_a_difference_has_its_sign_unless_it_rounds_to_zero(share: float | None, written: str) -> None:
    assert signed(share) == written


@pytest.mark.parametrize(("share", "written"), [(0.024, "+2"), (-0.004, "0"), (-0.016, "−2")])
def test_points_may_be_whole(share: float, written: str) -> None:
    assert signed(share, 0) == written


def test_markdown_from_data_is_text() -> None:
    assert markdown("a | b\n# *c* <d> [e](f) `g` & ~h~") == (r"a \| b \# \*c\* &lt;d&gt; \[e\](f) \`g\` &amp; \~h\~")


def test_html_escapes_and_markdown_does_not(tmp_path: Path) -> None:
    for name in ("page.html", "page.md"):
        (tmp_path / f"{name}.j2").write_text(
            "{{ text }} {{ share | percent }} {{ seconds | duration }} {{ rows | count }}"
        )
    facts = {"text": "<b>", "share": 0.5, "seconds": 3725.0, "rows": 12345}
    assert render("page.html", facts, tmp_path) == "&lt;b&gt; 50.0 1 h 2 min 12,345"
    assert render("page.md", facts, tmp_path) == "<b> 50.0 1 h 2 min 12,345"


def test_a_misspelt_fact_is_an_error(tmp_path: Path) -> None:
    from jinja2 import UndefinedError

    (tmp_path / "page.md.j2").write_text("{{ nothing }}")
    with pytest.raises(UndefinedError):
        render("page.md", {}, tmp_path)


@pytest.mark.parametrize(
    ("size", "side", "kind", "shown"), [((20, 10), 64, "png", (20, 10)), ((300, 150), 64, "jpeg", (64, 32))]
)
def test_large_images_become_jpeg_and_small_ones_stay(
    tmp_path: Path, size: tuple[int, int], side: int, kind: str, shown: tuple[int, int]
) -> None:
    Image.new("RGB", size, "red").save(tmp_path / "image.png")
    head, _, content = thumbnail(tmp_path / "image.png", side).partition(",")
    assert head == f"data:image/{kind};base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == shown


def test_a_broken_image_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="cannot read"):
        thumbnail(tmp_path / "image.png", 64)


def test_the_changed_words_are_marked() -> None:
    words = changed_words("A red cup is on a blue table.", "A blue cup is on a red table.")
    assert [word for word, changed in words if changed] == ["blue", "red"]
    assert " ".join(word for word, _ in words) == "A blue cup is on a red table."
