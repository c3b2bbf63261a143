"""Urban-1k and DCI, whose captions are longer than CLIP reads."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from stages.benchmarks import loaders as benchmarks
from tests.stages.benchmarks.files import assert_refused, jpeg, save


def test_urban1k_is_a_caption_file_per_image(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        jpeg(tmp_path / f"urban1k_retrieval/image/{number}.jpg")
        save(tmp_path / f"urban1k_retrieval/caption/{number}.txt", f"A long caption, number {number}. \nanother line\n")
    i2t, t2i = benchmarks.load("urban1k_retrieval", tmp_path, official=False)
    assert [row.row_id for row in t2i.rows] == ["1", "2", "10"]
    assert t2i.rows[0].texts == ("A long caption, number 1.",) and [row.right for row in i2t.rows] == [(0,), (1,), (2,)]
    digest = i2t.digest
    save(tmp_path / "urban1k_retrieval/caption/2.txt", "Another.")
    assert benchmarks.read("urban1k_retrieval", tmp_path)[0].digest != digest
    with pytest.raises(UserError, match="i2t has valid 3; expected 1000"):
        benchmarks.load("urban1k_retrieval", tmp_path, official=True)
    assert_refused(tmp_path, "urban1k_retrieval/caption/3.txt", "\nlater", "row 1 has caption")


def test_dci_is_asked_by_its_long_captions(tmp_path: Path) -> None:
    for number, caption in enumerate(["A long one.", "Another."]):
        item = {"image": f"sa_{number}.jpg", "short_caption": "s", "extra_caption": caption, "mask_data": {}}
        save(tmp_path / f"dci_retrieval/annotations/{number}.json", item)
        jpeg(tmp_path / f"dci_retrieval/photos/sa_{number}.jpg")
    without = {"image": "sa_2.jpg", "short_caption": "s", "extra_caption": " "}
    save(tmp_path / "dci_retrieval/annotations/2.json", without)
    i2t, t2i = benchmarks.load("dci_retrieval", tmp_path, official=True)
    assert [row.texts for row in t2i.rows] == [("A long one.",), ("Another.",)] and len(i2t.rows) == 2
    assert_refused(tmp_path, "dci_retrieval/annotations/3.json", {"image": "a.jpg"}, "has extra_caption = None")
