"""An image on disk, and what identifies a measurement."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from stages.benchmarks.rows import ImageRef, Part, Row, Subset
from tests.stages.benchmarks.files import jpeg


def test_a_box_outside_its_image_is_an_error_and_one_over_the_edge_is_not(tmp_path: Path) -> None:
    path = tmp_path / "0.png"
    jpeg(path)  # 40 x 40
    with pytest.raises(UserError, match=r"the box \(40, 0, 60, 20\) lies outside .* 40 x 40 pixels"):
        ImageRef(path, (40, 0, 60, 20))()
    assert ImageRef(path, (30, 0, 50, 20))().getpixel((15, 5)) == (0, 0, 0)


def test_a_part_is_named_alike_in_every_process() -> None:
    def read_nothing(path: Path, column: str, row: int) -> None:
        raise AssertionError

    assert repr(Part(read_nothing, "image", 3)) == "read_nothing('image', 3)"  # type: ignore[arg-type]


def test_every_image_of_a_subset_and_its_protocol() -> None:
    first, second, option = (ImageRef(Path(f"{name}.png")) for name in "abc")
    rows = (Row("0", "a", first, ("x", "y"), others=(second,)), Row("1", "t", None, ("x",)))
    subset = Subset("b", "s", "square", "wrong", "d", rows, image_options=(option,))
    assert subset.images == {first, second, option}
    assert subset.protocol == "square;tie=wrong;fp32;d"
    assert Subset("b", "s", "square", "wrong", "d", rows, split="half").protocol.endswith(";d;split=half")
