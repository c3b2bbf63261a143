"""BiVLC as shards with the images inside, and as files."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from stages.benchmarks import loaders as benchmarks
from tests.stages.benchmarks.files import jpeg, save, scored
from tests.stages.small_road import caption


def write_bivlc_shard(path: Path, rows: int, group: int) -> None:
    """As Hugging Face has it: pictures as {bytes, path}, in small row groups."""
    colours = ["red", "green", "blue", "yellow"]
    picture_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells: dict[str, list[Any]] = {"image": [], "negative_image": []}
    for row in range(rows):
        left, right = colours[row % 4], colours[(row + 1) % 4]
        for column, pair in (("image", (left, right)), ("negative_image", (right, left))):
            data = jpeg(path.parent.parent / "made" / f"{column}{row}.png", *pair)
            cells[column].append({"bytes": data, "path": f"{row:012d}.jpg" if column == "image" else None})
    kinds = [("swap", "att"), ("add", "obj")]
    table = pa.table(
        {
            "image": pa.array(cells["image"], picture_type),
            "caption": [caption("red", "blue")] * rows,
            "negative_caption": [caption("blue", "red")] * rows,
            "negative_image": pa.array(cells["negative_image"], picture_type),
            "type": [kinds[row % 2][0] for row in range(rows)],
            "subtype": [kinds[row % 2][1] for row in range(rows)],
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)


def test_shards_show_the_images_inside(tmp_path: Path) -> None:
    write_bivlc_shard(tmp_path / "bivlc" / "test-00000-of-00001.parquet", rows=5, group=2)
    add, swap = benchmarks.load("bivlc", tmp_path, official=False)
    assert (add.name, swap.name) == ("add_obj", "swap_att") and (len(add.rows), len(swap.rows)) == (2, 3)
    last = swap.rows[-1]
    assert last.image_key == "000000000004.jpg" and last.image
    assert last.image().getpixel((10, 20)) == (255, 0, 0)  # row 4 begins with red again, its negative with green
    assert last.others[0]().getpixel((10, 20)) == (0, 128, 0)
    with pytest.raises(UserError, match="bivlc has valid 5; expected 2933"):
        benchmarks.load("bivlc", tmp_path, official=True)


def test_csv_names_its_images(tmp_path: Path) -> None:
    jpeg(tmp_path / "bivlc/images/1.png")
    header = "image,caption,negative_caption,negative_image,type,subtype\n"
    save(tmp_path / "bivlc/test.csv", header + '1.png,"a cup, red",a dog,2.png,replace,obj\n')
    (subset,) = benchmarks.load("bivlc", tmp_path, official=False)
    (row,) = subset.rows
    assert (subset.name, subset.rule, row.texts) == ("replace_obj", "square", ("a cup, red", "a dog"))
    save(tmp_path / "bivlc/test.csv", header + "1.png,a cup,a dog,2.png,replace\n")
    with pytest.raises(UserError, match=r"bivlc/test\.csv row 0 .* expected 6 fields"):
        benchmarks.load("bivlc", tmp_path, official=False)


def test_only_one_form_of_the_files(tmp_path: Path) -> None:
    write_bivlc_shard(tmp_path / "bivlc/test.parquet", rows=1, group=1)
    save(tmp_path / "bivlc/test.csv", "image,caption\n")
    with pytest.raises(UserError, match=r"holds test\.csv and test\.parquet"):
        benchmarks.read("bivlc", tmp_path)


def test_a_shard_that_is_cut_short_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bivlc" / "test.parquet"
    write_bivlc_shard(path, rows=2, group=1)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read"):
        benchmarks.read("bivlc", tmp_path)
    pq.write_table(pa.table({"caption": ["a"]}), path)
    with pytest.raises(UserError, match="has column = "):
        benchmarks.read("bivlc", tmp_path)


def test_all_three_scores() -> None:
    squares = [[0.9, 0.1, 0.2, 0.8], [0.5, 0.4, 0.7, 0.8], [0.5, 0.7, 0.4, 0.8]]
    bivlc = scored("bivlc", "add_obj", "square", squares)
    assert bivlc == pytest.approx({"bivlc.text": 2 / 3, "bivlc.image": 2 / 3, "bivlc.group": 1 / 3})
