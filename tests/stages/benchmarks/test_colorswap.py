"""ColorSwap: the authors' JSON and the hub's Parquet."""

from pathlib import Path

from stages.benchmarks import loaders as benchmarks
from tests.stages.benchmarks.files import assert_refused, jpeg, save
from tests.stages.benchmarks.packed import save_packed

ROW = {"id": 0, "caption_1": "a red cup, a blue dog", "caption_2": "a blue cup, a red dog",
       "image_1": "images/img_0_1.png", "image_2": "images/img_0_2.png", "image_source": "midjourney"}  # fmt: skip


def test_both_forms_give_the_same_rows(tmp_path: Path) -> None:
    for which in (1, 2):
        jpeg(tmp_path / f"colorswap/images/img_0_{which}.png")
    save(tmp_path / "colorswap/test.json", [ROW])
    save(tmp_path / "colorswap/train.json", [ROW, ROW])
    ((named,),) = (one.rows for one in benchmarks.load("colorswap", tmp_path, official=False))
    words = {name: ROW[name] for name in ("caption_1", "caption_2")}
    (tmp_path / "colorswap/test.json").unlink()
    names: dict[str, list[str | None]] = {name: [str(ROW[name])] for name in ("image_1", "image_2")}
    save_packed(tmp_path / "colorswap/test-00000-of-00001.parquet", [words], **names)
    (subset,) = benchmarks.load("colorswap", tmp_path, official=False)
    (packed,) = subset.rows
    assert (subset.name, subset.rule) == ("test", "square")
    assert (packed.texts, packed.image_key) == (named.texts, named.image_key) == (
        ("a red cup, a blue dog", "a blue cup, a red dog"), "colorswap:images/img_0_1.png",
    )  # fmt: skip
    assert packed.others[0]().getpixel((10, 20)) == (0, 128, 0)


def test_broken_files_are_one_line_that_says_where(tmp_path: Path) -> None:
    assert_refused(tmp_path, "colorswap/test.json", [ROW | {"caption_2": ""}], "row 0 has caption_2")
    assert_refused(tmp_path, "colorswap/test.json", [ROW | {"image_1": "../x"}], "a file name below colorswap")
