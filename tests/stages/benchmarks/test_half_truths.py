"""Half-Truths: a caption against one with a wrong detail, and all three in order."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from stages.benchmarks import loaders as benchmarks
from tests.stages.benchmarks.files import scored
from tests.stages.benchmarks.packed import save_packed

ROWS: list[dict[str, Any]] = [
    {"id": f"{i}", "anchor": "a cup", "full_truth": "a cup on a table", "half_truth": "a cup on a dog",
     "triplet_type": kind}
    for i, kind in enumerate(["relation", "entity"])
]  # fmt: skip


def test_each_file_is_asked_twice(tmp_path: Path) -> None:
    save_packed(tmp_path / "half_truths/coco_qwen.parquet", ROWS, image=["000000000139.jpg", "000000000632.jpg"])
    save_packed(tmp_path / "half_truths/cc3m_qwen.parquet", ROWS, image=["139.jpg", "632.jpg"])
    coco, ordered, cc3m, _ = benchmarks.load("half_truths", tmp_path, official=False)
    assert (coco.rule, coco.rows[0].texts) == ("choice", ("a cup", "a cup on a dog"))
    assert (ordered.rule, ordered.rows[0].texts) == ("both", ("a cup", "a cup on a table", "a cup on a dog"))
    assert (coco.rows[0].image_key, cc3m.rows[0].image_key) == ("000000000139.jpg", "half_truths:139.jpg")
    with pytest.raises(UserError, match="half_truths/coco_qwen has valid 2; expected 509"):
        benchmarks.load("half_truths", tmp_path, official=True)


def test_the_order_is_right_only_as_a_whole_and_without_ties() -> None:
    """Similarities of the short caption, the true detail, the wrong one."""
    orders = [[2, 3, 1], [3, 2, 1], [2, 3, 2], [2, 2, 1], [1, 3, 2], [2, 1, 3]]
    found = scored("half_truths", "coco_qwen.ordered", "both", [[float(one) for one in row] for row in orders])
    assert found["half_truths.ordered"] == pytest.approx(1 / 6)
