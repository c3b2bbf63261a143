"""CREPE's files: captions against foils in a box of the image, by complexity and by what was in the training data."""

from pathlib import Path

import pytest

from stages.benchmarks import loaders as benchmarks
from stages.benchmarks.crepe import means
from stages.benchmarks.rows import ImageRef
from tests.stages.benchmarks.files import assert_refused, jpeg, save

HEAD = "image_id,caption,hard_negs,x,y,width,height\n"
ROW = "2,a cup on a table,\"['a dog on a table', 'b', 'c', 'd', \"\"e's\"\"]\",0,0,20.0,40\n"


def name(kind: str, complexity: int) -> str:
    return f"crepe/prod_hard_negatives/{kind}/prod_vg_hard_negs_{kind}_complexity_{complexity}.csv"


def test_a_subset_per_kind_with_complexity_as_its_groups(tmp_path: Path) -> None:
    jpeg(tmp_path / "crepe/images/VG_100K_2/2.jpg")
    save(tmp_path / name("atom", 4), HEAD + ROW)
    save(tmp_path / name("atom", 12), HEAD + ROW + ROW.replace("2,", "3,", 1))
    save(tmp_path / name("negate", 5), HEAD + ROW)
    atom, negate = benchmarks.load("crepe", tmp_path, official=False)
    assert (atom.name, negate.name) == ("atom", "negate")
    first, second, third = atom.rows
    assert first.texts == ("a cup on a table", "a dog on a table", "b", "c", "d", "e's")
    assert first.image == ImageRef(tmp_path / "crepe/images/VG_100K_2/2.jpg", (0, 0, 20, 40))
    assert third.image and third.image.path == tmp_path / "crepe/images/VG_100K/3.jpg"
    assert [row.group for row in atom.rows] == ["4", "12", "12"] and second.row_id == "12:0"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW.replace(",40", ",x"), "row 0 has height = 'x'; expected a number"),
        (ROW.replace(",40", ",nan"), "row 0 has box"),
        (ROW.replace("['a", "'a"), "row 0 has hard_negs"),
        (ROW.replace("2,", "../2,", 1), "a file name below"),
    ],
)
def test_broken_files_are_one_line_that_says_where(tmp_path: Path, row: str, message: str) -> None:
    assert_refused(tmp_path, name("swap", 4), HEAD + row, message)


def test_complexities_count_alike_in_one_mean_and_rows_in_the_other() -> None:
    made = {one.name: one for one in means("crepe", ["atom"], {("crepe", "atom"): ["4", "12"]})}
    assert [rows for rows, _ in made["crepe.atom.by_complexity"].cells] == [
        (("crepe", "atom", "4"),), (("crepe", "atom", "12"),),
    ]  # fmt: skip
    assert made["crepe.atom"].subset == "atom" and made["crepe.atom"].chance == pytest.approx(1 / 6)


SYSTEMATIC = "region_id,image_id,caption,x,y,width,height,valid_hard_negs_atom,valid_hard_negs_comp\n"


def test_systematicity_is_a_subset_per_data_split_and_foils(tmp_path: Path) -> None:
    path = "crepe/syst_hard_negatives/syst_vg_hard_negs_{}_compounds_in_laion.csv"
    jpeg(tmp_path / "crepe/images/VG_100K/2.jpg")
    foiled = "7,2,a red brick,0,0,20,40,\"['a blue brick', 'a red tile']\",['a red mall and blue brick']\n"
    save(tmp_path / path.format("seen"), SYSTEMATIC + foiled + "8,3,a tree,0,0,20,40,[],['a house']\n")
    save(tmp_path / path.format("unseen"), SYSTEMATIC + foiled)
    found = {one.name: one for one in benchmarks.load("crepe", tmp_path, official=True)}
    assert list(found) == [f"laion.{split}.{foils}" for split in ("seen", "unseen") for foils in ("atom", "comp")]
    (row,) = found["laion.seen.atom"].rows
    assert row.texts == ("a red brick", "a blue brick", "a red tile") and row.row_id == "seen:0"
    assert len(found["laion.seen.comp"].rows) == 2
    made = means("crepe", list(found), {("crepe", name): ["seen"] for name in found})
    assert [one.name for one in made] == [f"crepe.{name}" for name in found], "none of productivity's means"
