"""What'sUp's six files, its pairs and its sets."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from stages.benchmarks import loaders as benchmarks
from stages.evaluate.rows import margin
from tests.stages.benchmarks.files import assert_refused, jpeg, save, scored

A = "whatsup/controlled_images_dataset.json"
PLACES = {"left_of": "to the left of", "right_of": "to the right of", "on": "on", "under": "under"}


def controlled(places: tuple[str, ...] = tuple(PLACES)) -> list[dict[str, object]]:
    texts = {place: f"A mug {PLACES[place]} a table" for place in places}
    return [
        {"image_path": f"data/controlled_images/mug_{place}_table.jpeg",
         "caption_options": [text, *(other for other in texts.values() if other != text)]}
        for place, text in texts.items()
    ]  # fmt: skip


def write_whatsup(root: Path) -> None:
    for place in PLACES:
        jpeg(root / f"whatsup/controlled_images/mug_{place}_table.jpeg")
    save(root / A, controlled())
    jpeg(root / "whatsup/val2017/000000000139.jpg")
    save(root / "whatsup/coco_qa_one_obj.json", [[139, "A cup on the left", "A cup on the right"]])
    jpeg(root / "whatsup/vg_images/2.jpg")
    save(root / "whatsup/vg_qa_two_obj.json", [["2", "A cup left of a dog", "A cup right of a dog"]])


def test_four_options_the_right_one_first_and_sets_of_four_images(tmp_path: Path) -> None:
    write_whatsup(tmp_path)
    found = {one.name: one for one in benchmarks.load("whatsup", tmp_path, official=False)}
    assert list(found) == ["controlled_images", "controlled_images.sets", "coco_qa_one_obj", "vg_qa_two_obj"]
    assert all(image.path.is_file() for one in found.values() for image in one.images)
    assert found["controlled_images"].rows[2].texts[0] == "A mug on a table"
    (row,) = found["controlled_images.sets"].rows
    assert [text.split()[2] for text in row.texts] == ["to", "to", "on", "under"] and len(row.others) == 3
    assert found["vg_qa_two_obj"].rows[0].image_key == "2.jpg"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (A, controlled()[:3], "has the places of .*mug.* expected left, right, on, under"),
        (A, [{"image_path": "mug.jpeg", "caption_options": list("abcd")}], "a name like"),
        (A, [controlled()[0] | {"caption_options": ["a"]}], "row 0 has caption_options"),
        ("whatsup/coco_qa_one_obj.json", [["x", "a", "b"]], "row 0 has row"),
        ("whatsup/other.json", [], "is no file of this benchmark"),
    ],
)
def test_broken_files_are_one_line_that_says_where(tmp_path: Path, file: str, content: object, message: str) -> None:
    if file == A and isinstance(content, list) and len(content) == 1:
        content = content + controlled()[1:]
    assert_refused(tmp_path, file, content, message)


def test_a_set_is_right_when_every_image_finds_its_text() -> None:
    """Every way to answer two of four images by hand, against numpy's argmax."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        square = rng.random((4, 4))
        own = square.argmax(1) == np.arange(4)
        assert (margin("set", square.ravel().tolist()) > 0) == own.all()


@pytest.mark.parametrize("right", list(itertools.product([False, True], repeat=4)))
def test_pairs_are_opposites_and_a_tie_is_right(right: tuple[bool, ...]) -> None:
    square = np.eye(4)
    for image, is_right in enumerate(right):
        if not is_right:
            square[image, (image + 1) % 4] = 2
    found = scored("whatsup", "controlled_images.sets", "set", [square.ravel().tolist(), np.ones(16).tolist()])
    pairs = (right[0] and right[1]) + (right[2] and right[3])
    assert found["whatsup.controlled_images.pairs"] == pytest.approx((pairs / 2 + 1) / 2)
