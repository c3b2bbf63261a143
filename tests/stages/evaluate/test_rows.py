"""When a row is right, and how it is written down."""

import math

import numpy as np
import pytest

from stages.benchmarks.rows import Row, Subset
from stages.evaluate.rows import margin, prompted, table_row, texts_key
from tests.stages.evaluate.vectors import pairs_of


def test_two_right_texts_and_squares_are_decided_as_their_benchmarks_do() -> None:
    assert margin("both", [0.5, 0.4, 0.3]) > 0 > margin("both", [0.5, 0.2, 0.3])
    assert margin("texts", [0.9, 0.2, 0.8]) > 0 > margin("texts", [0.7, 0.2, 0.8])
    assert margin("square", [0.9, 0.1, 0.2, 0.8]) > 0
    assert margin("square", [0.9, 0.1, 0.95, 0.96]) < 0, "the second image takes the first caption"


@pytest.mark.parametrize(
    ("tie", "similarities", "correct"),
    [("wrong", [0.2, 0.1], 1), ("wrong", [0.1, 0.2], 0), ("wrong", [0.1, 0.1], 0), ("right", [0.1, 0.1], 1)],
)
def test_a_row_is_right_wrong_or_tied(tie: str, similarities: list[float], correct: float) -> None:
    subset = pairs_of(1, tie=tie)
    row = table_row(subset, subset.rows[0], similarities, "m", {("sugarcrepe", "swap_att", "0")})
    assert (row["correct"], row["tie"], row["leaked"]) == (correct, similarities[0] == similarities[1], True)
    assert row["protocol"] == subset.protocol and row["similarities"] == similarities


def test_a_row_that_was_not_scored_is_neither() -> None:
    subset = pairs_of(1, tie="right")
    row = table_row(subset, subset.rows[0], None, "m", set())
    assert math.isnan(row["correct"]) and row["tie"] is False and row["similarities"] is None


def test_rows_that_ask_about_the_same_texts_share_a_key() -> None:
    def key(*texts: str) -> str:
        return texts_key(pairs_of(1), Row("0", "0", None, texts))

    assert key("a cup", "a dog") == key("a dog", "a cup"), "whichever is the right one"
    assert len({key("a cup", "a dog"), key("a cup", "a hen"), key("a cup"), key("a cupa dog")}) == 4


def test_where_the_options_are_shared_a_rows_texts_are_the_right_ones() -> None:
    prompts = (("a cat", "the cat"), ("a dog", "the dog"), ("a hen",))
    rows = [Row(str(i), str(i), None, (), right) for i, right in enumerate([(0,), (0,), (1,), (1, 2), (2, 1)])]
    classes = Subset("zeroshot", "pets", "classify", "wrong", "d", tuple(rows), prompts)
    one, same, other, two, turned = (texts_key(classes, row) for row in rows)
    assert one == same and two == turned and len({one, other, two}) == 3
    assert table_row(classes, rows[0], [1.0, 0.0, 0.0], "m", set())["texts_key"] == one


def test_the_prompts_of_a_class_are_one_unit_vector() -> None:
    mean_D = prompted(np.asarray([[1, 0], [0, 1]], dtype=np.float32))
    np.testing.assert_allclose(mean_D, [0.5**0.5, 0.5**0.5], rtol=1e-6)
    assert mean_D.dtype == np.float32
