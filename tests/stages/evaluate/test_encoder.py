"""Each distinct image and text through the model once."""

from pathlib import Path

import numpy as np
import pytest

from pipeline import clip
from stages.benchmarks.rows import ImageRef, Row, Subset
from stages.evaluate.encoder import Encoder
from stages.evaluate.scoring import score
from tests.stages.small_road import model_folder, picture


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    tower = str(model_folder(tmp_path / "tower"))
    return Encoder(lambda: clip.load(tower, seed=1), tmp_path / "kept", batch=1)


def test_texts_with_the_same_tokens_tie_exactly(encoder: Encoder, tmp_path: Path) -> None:
    """CLIP's tokenizer folds case and spaces: such an option is the caption itself, in whatever batch it comes."""
    picture(tmp_path / "0.png", "red", "blue")
    texts = ("a red circle", "A  red CIRCLE", "a blue and very long text about a circle and a square and a star")
    subset = Subset("aro", "coco_order", "choice", "right", "d", (Row("0", "0", ImageRef(tmp_path / "0.png"), texts),))
    (row,) = score(encoder, [subset], "m", set())
    assert row["similarities"][0] == row["similarities"][1] != row["similarities"][2]
    assert row["tie"] is (row["similarities"][0] > row["similarities"][2])


def test_an_image_that_is_not_there_has_no_embedding_and_repeats_have_one(encoder: Encoder, tmp_path: Path) -> None:
    picture(tmp_path / "0.png", "red", "blue")
    there, box, gone = (
        ImageRef(tmp_path / "0.png"),
        ImageRef(tmp_path / "0.png", (0, 0, 20, 40)),
        ImageRef(tmp_path / "1.png"),
    )
    at, image_ND = encoder.images([there, gone, box, there])
    assert len(image_ND) == 3 and at[there] != at[box]
    assert np.isnan(image_ND[at[gone]]).all() and np.isfinite(image_ND[[at[there], at[box]]]).all()
    assert (image_ND[at[there]] != image_ND[at[box]]).any()


def test_embeddings_are_kept_until_the_file_changes(encoder: Encoder, tmp_path: Path) -> None:
    picture(tmp_path / "0.png", "red", "blue")
    image = ImageRef(tmp_path / "0.png")
    _, first = encoder.images([image])
    again = Encoder(lambda: pytest.fail("loaded again"), tmp_path / "kept")
    np.testing.assert_array_equal(again.images([image])[1], first)
    picture(tmp_path / "0.png", "green", "white")
    _, other = encoder.images([image])
    assert (other[0] != first[0]).any()


def test_a_text_is_cut_when_its_end_changes_nothing(encoder: Encoder) -> None:
    """The context is 77 tokens, two of them start and end."""
    assert encoder.cut(["a cup"]) == 0
    fits, too_long = " ".join(["cup"] * 75), " ".join(["cup"] * 76)
    assert encoder.cut([fits]) == 0 and encoder.cut([too_long]) == 1
    assert encoder.cut([fits, too_long, too_long, f"{too_long}!", f"{fits}.", "", "..."]) == 2, "distinct ones"


def test_a_model_says_how_it_reads(encoder: Encoder) -> None:
    assert set(encoder.description) == {"activation", "preprocess", "tokenizer", "context_length", "device"}
    assert encoder.description["device"] == encoder.device and encoder.description["activation"] == "gelu"
