"""VisMin-bench: shards whose texts stand crosswise in half of the rows, and the file that says in which."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from stages.benchmarks import loaders as benchmarks
from stages.benchmarks.vismin import CROSSED, STRAIGHT
from tests.stages.benchmarks.files import save
from tests.stages.benchmarks.packed import save_packed

IMAGE = "T0_I0 > T0_I1 & T1_I1 > T1_I0"


def write_vismin(root: Path, kinds: list[str], orders: list[str]) -> None:
    """Two shards; the texts of row i are "right i" and "wrong i", as the first image should have them."""
    rows = [
        {"text_0": f"{'right' if order == STRAIGHT else 'wrong'} {i}", "category": kind,
         "text_1": f"{'wrong' if order == STRAIGHT else 'right'} {i}"}
        for i, (kind, order) in enumerate(zip(kinds, orders, strict=True))
    ]  # fmt: skip
    for shard, part in enumerate((rows[:2], rows[2:])):
        names: list[str | None] = [None] * len(part)
        save_packed(root / f"vismin/data/test/data-0000{shard}.arrow", part, image_0=names, image_1=names)
    lines = [f"{i},{order},{IMAGE},{kind}" for i, (kind, order) in enumerate(zip(kinds, orders, strict=True))]
    save(root / "vismin/sim_solution.csv", "\n".join(["idx,Text,Image,category", *lines]))


KINDS = ["object", "object", "attribute"]
ORDERS = [STRAIGHT, CROSSED, CROSSED]


def test_texts_are_put_to_their_images(tmp_path: Path) -> None:
    write_vismin(tmp_path, KINDS, ORDERS)
    attribute, thing = benchmarks.load("vismin", tmp_path, official=False)
    assert (attribute.name, thing.name) == ("attribute", "object")
    assert [row.texts for row in thing.rows + attribute.rows] == [(f"right {i}", f"wrong {i}") for i in range(3)]
    assert thing.rows[1].others[0]().getpixel((10, 20)) == (0, 0, 255)
    assert [row.row_id for row in thing.rows] == ["data-00000:0", "data-00000:1"]
    with pytest.raises(UserError, match="vismin has valid 3; expected 2084"):
        benchmarks.load("vismin", tmp_path, official=True)


def test_nothing_is_scored_without_the_file_that_says_which_is_which(tmp_path: Path) -> None:
    write_vismin(tmp_path, KINDS, ORDERS)
    solution = tmp_path / "vismin/sim_solution.csv"
    lines = solution.read_text().splitlines()
    for content, message in (
        (lines[:3], "has rows = 2; expected 3"),
        ([*lines[:1], *lines[1:2], lines[3], lines[2]], "the shards' categories, row by row"),
        ([line.replace("T1_I0 > T0_I0", "T1_I0 = T0_I0") for line in lines], "row 1 has Text"),
    ):
        solution.write_text("\n".join(content))
        with pytest.raises(UserError, match=message):
            benchmarks.read("vismin", tmp_path)
    solution.unlink()
    with pytest.raises(UserError, match=r"has no sim_solution\.csv; .* fix: degla data fetch vismin"):
        benchmarks.read("vismin", tmp_path)
