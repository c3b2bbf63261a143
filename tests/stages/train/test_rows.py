"""The training rows as the dataset has them."""

from pathlib import Path

import pytest

from pipeline import tables
from pipeline.errors import UserError
from pipeline.negative_types import NEGATIVE_TYPES
from pipeline.schema import PAIRS
from stages.train.rows import read_rows
from tests.stages.training import small_inputs


def test_a_text_that_a_pair_has_under_two_types_is_trained_with_once(tmp_path: Path) -> None:
    inputs = small_inputs(tmp_path, pictures=4, same=("swap_nouns", "replace_nouns"))
    rows = read_rows(inputs["dataset"], inputs["pairs"], NEGATIVE_TYPES)
    have = dict(zip(NEGATIVE_TYPES, rows.have.T.tolist(), strict=True))
    assert any(have["swap_nouns"]) and not any(have["replace_nouns"])
    alone = read_rows(inputs["dataset"], inputs["pairs"], ("replace_nouns",))
    assert alone.have[:, 0].tolist() == have["swap_nouns"], "it is there where the other type is not trained with"


def test_a_type_that_the_dataset_lacks_is_named(tmp_path: Path) -> None:
    inputs = small_inputs(tmp_path, pictures=4)
    with pytest.raises(UserError, match=r"no negatives of type negation.*generate\.types=\[swap_nouns, negation\]"):
        read_rows(inputs["dataset"], inputs["pairs"], ("swap_nouns", "negation"))


def test_captions_are_read_where_they_are_asked_for_and_images_tell_how_they_stand(tmp_path: Path) -> None:
    inputs = small_inputs(tmp_path, pictures=4)
    sizes = [{"image_uri": f"{number}.png", "width": 20, "height": 10 + 5 * number} for number in range(4)]
    blank = {field.name: 0 if "int" in str(field.type) and "dict" not in str(field.type) else "" for field in PAIRS}
    tables.write(tables.part(inputs["pairs"].table_folder("pairs"), 1), [blank | size for size in sizes], PAIRS)
    assert read_rows(inputs["dataset"], inputs["pairs"], ()).captions is None
    rows = read_rows(inputs["dataset"], inputs["pairs"], (), captions=True)
    for caption, file in zip(rows.captions.to_pylist(), rows.image_file, strict=True):
        assert f"thing {Path(rows.uris[file]).stem} " in caption
    assert dict(zip(rows.uris, rows.upright.tolist(), strict=True)) == {
        "0.png": False, "1.png": False, "2.png": False, "3.png": True
    }  # fmt: skip
