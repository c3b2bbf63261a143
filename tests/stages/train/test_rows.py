"""The training rows as the dataset has them."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline import tables
from pipeline.errors import UserError
from pipeline.negative_types import NEGATIVE_TYPES
from pipeline.schema import DATASET, PAIRS
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


def test_units_are_drawn_with_their_foils_from_the_row_s_own(tmp_path: Path) -> None:
    inputs = small_inputs(tmp_path, pictures=6)
    assert read_rows(inputs["dataset"], inputs["pairs"], ()).units is None
    rows = read_rows(inputs["dataset"], inputs["pairs"], (), units=True)
    written = tables.read(inputs["dataset"].table_folder("dataset")).filter(pc.field("split") == "train")
    texts = written.select(["units_tokens", "unit_foils_tokens"]).to_pylist()
    epochs = [rows.units.draw(3, epoch) for epoch in range(8)]
    assert (epochs[0] == rows.units.draw(3, 0)).all() and any((epochs[0] != other).any() for other in epochs[1:])
    assert any(text["units_tokens"] is None for text in texts)
    for row, text in enumerate(texts):
        own = list(zip(text["units_tokens"] or (), text["unit_foils_tokens"] or (), strict=True))
        drawn = [number for epoch in epochs for number in epoch[row]]
        if not own:
            assert set(drawn) == {-1}
            continue
        found = [tuple(each.tolist() for each in rows.units.tokens(number)) for number in drawn]
        assert {str(each) for each in found} == {str(each) for each in own}, "all of them, and each with its own foil"
        units, foils = zip(*found[:2], strict=True)
        assert [each.tolist() for each in rows.unit_texts(np.array(drawn[:2]))] == [*units, *foils]


def test_a_dataset_without_units_is_named(tmp_path: Path) -> None:
    inputs = small_inputs(tmp_path, pictures=4)
    folder = inputs["dataset"].table_folder("dataset")
    for path, read in [(path, pq.read_table(path)) for path in tables.files(folder)]:
        tables.write(path, read.select(DATASET.names), DATASET)
    with pytest.raises(UserError, match=r"no units.*generate\.types"):
        read_rows(inputs["dataset"], inputs["pairs"], (), units=True)


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
