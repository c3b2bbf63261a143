"""COCO-Counterfactuals: lines of two names and two captions."""

import json
from pathlib import Path

from stages.benchmarks import loaders as benchmarks
from tests.stages.benchmarks.files import assert_refused, jpeg, save

LINE = {"id": "236308_0", "image_0": "236308_0_img_0", "image_1": "236308_0_img_1", "caption_0": "a cup",
        "caption_1": "a dog"}  # fmt: skip


def test_names_are_given_without_their_ending(tmp_path: Path) -> None:
    for which in (0, 1):
        jpeg(tmp_path / f"coco_counterfactuals/images/236308_0_img_{which}.jpg")
    save(tmp_path / "coco_counterfactuals/examples.jsonl", json.dumps(LINE))
    (subset,) = benchmarks.load("coco_counterfactuals", tmp_path, official=True)
    (row,) = subset.rows
    assert subset.rule == "square" and row.texts == ("a cup", "a dog")
    assert all(image.path.is_file() for image in subset.images) and len(subset.images) == 2


def test_broken_files_are_one_line_that_says_where(tmp_path: Path) -> None:
    lacking = json.dumps({key: value for key, value in LINE.items() if key != "image_1"})
    assert_refused(tmp_path, "coco_counterfactuals/examples.jsonl", lacking, "row 0 has image_1 = None")
