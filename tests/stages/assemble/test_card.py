import re
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from pipeline import tables
from stages.assemble.card import LOAD
from tests.stages.assemble.test_stage import PAIRS_ROWS, inputs, negative, pair, run

HOSTILE = "A <script>alert(1)</script> | **bold** [link](x)."


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """A dataset whose captions try to be markup; of two images, one is gone."""
    given = inputs(
        tmp_path, [*PAIRS_ROWS, pair(5, HOSTILE, 5)], [negative(pair(5, HOSTILE, 5), "swap_nouns", HOSTILE[:-1] + "!")]
    )
    images = given["pairs"].path / "images"
    images.mkdir()
    Image.new("RGB", (300, 200), "red").save(images / "5.png")
    run(tmp_path / "out", given)
    return tmp_path / "out"


def test_text_from_data_stays_text(card: Path) -> None:
    tags: list[str] = []
    page = HTMLParser()
    page.handle_starttag = lambda tag, attrs: tags.append(tag)  # type: ignore[method-assign]
    html = (card / "card.html").read_text(encoding="utf-8")
    page.feed(html)
    assert "script" not in tags and "&lt;script&gt;" in html
    told = (card / "card.md").read_text(encoding="utf-8")
    assert r"\*\*bold\*\* \[link\](x)" in told and "<script>" not in told


def test_images_stand_in_the_page_and_a_missing_one_is_no_fault(card: Path) -> None:
    html = (card / "card.html").read_text(encoding="utf-8")
    assert html.count("data:image/jpeg;base64,") == 1 and html.count(">no image<") == 2
    assert not re.search(r'(src|href)="(?!#|data:)', html), "one file, no network"


@pytest.mark.parametrize("library", LOAD)
def test_the_lines_that_load_it_run_in_its_folder(
    card: Path, library: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec(library) is None:
        pytest.skip(f"{library} is not here")
    lines = LOAD[library]
    assert lines.count("\n") == 2 and lines in (card / "card.md").read_text(encoding="utf-8")
    monkeypatch.chdir(card)
    found: dict[str, object] = {}
    exec(lines, found)
    train = sum(row["split"] == "train" for row in tables.read(card).to_pylist())
    counts = {"duckdb": "len(rows)", "pyarrow": "table.num_rows", "pandas": "(frame.split == 'train').sum()"}
    assert eval(counts[library], found) == train == 4
