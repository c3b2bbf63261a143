"""The pieces means are made of."""

import itertools

import numpy as np
import pytest

from stages.benchmarks.means import SIDES, heads, mean, nested, pairwise, square
from stages.evaluate.rows import margin


def test_a_nested_mean_weighs_parts_alike_whatever_their_size() -> None:
    one, two, three = ((((("b", name, None),), 1.0),) for name in "xyz")
    cells = nested([[one, two], [three]])
    assert [(rows[0][1], weight) for rows, weight in cells] == [("x", 0.25), ("y", 0.25), ("z", 0.5)]


def test_pairwise_tells_the_mean_of_subsets_from_all_rows() -> None:
    plain, micro, *each = pairwise("b", ["x", "y"], {})
    assert [len(rows) for rows, _ in plain.cells] == [1, 1] and [len(rows) for rows, _ in micro.cells] == [2]
    assert [item.subset for item in each] == ["x", "y"] and heads([plain, micro, *each]) == [
        item.cells for item in each
    ]
    assert {item.chance for item in (plain, micro, *each)} == {0.5}


def test_a_square_gives_its_main_score_by_subset_too() -> None:
    one = square("b", ["x"], "correct")
    assert {item.name: item.subset for item in one} == {"b.text": None, "b.image": None, "b.group": "x"}
    two = square("b", ["x", "y"], "image")
    assert [item.name for item in two] == ["b.text", "b.image", "b.x.image", "b.y.image", "b.group"]
    assert [item.chance for item in two] == [0.25] * 4 + [1 / 6]


@pytest.mark.parametrize(
    ("similarities", "right"),
    [
        ([0.9, 0.1, 0.2, 0.8], {"text", "image"}),
        ([0.5, 0.4, 0.7, 0.8], {"text"}),
        ([0.5, 0.7, 0.4, 0.8], {"image"}),
        ([0.5, 0.5, 0.5, 0.5], set()),
    ],
)
def test_sides_of_a_square(similarities: list[float], right: set[str]) -> None:
    assert {name for name in ("text", "image") if SIDES[name](similarities)} == right


def test_sides_of_a_square_in_every_order() -> None:
    """Similarities of image 0 with text 0 and 1, then of image 1: each image, or each text, finds its own."""
    for s in itertools.permutations([0.1, 0.2, 0.3, 0.4]):
        pair = np.reshape(s, (2, 2))
        text, image = (pair.argmax(axis).tolist() == [0, 1] for axis in (1, 0))
        assert (SIDES["text"](list(s)), SIDES["image"](list(s))) == (text, image)
        assert (margin("square", list(s)) > 0) == (text and image)


def test_sides_of_two_right_texts_and_a_wrong_one_in_every_order() -> None:
    for s in itertools.permutations([0.1, 0.2, 0.3]):
        first, _, wrong = s
        assert SIDES["original"](list(s)) == (first > wrong)
        assert SIDES["brittle"](list(s)) == (sorted(s)[1] == wrong)
        assert (margin("both", list(s)) > 0) == (max(s) != wrong != sorted(s)[1])
    tied = [0.2, 0.2, 0.2]
    assert not SIDES["original"](tied) and not SIDES["brittle"](tied)


def test_cells_of_a_mean_weigh_alike() -> None:
    made = mean("b.mean", "plain mean", [[("b", "x", None)], [("b", "y", "g"), ("b", "z", None)]], chance=0.5)
    assert made.cells == (((("b", "x", None),), 0.5), ((("b", "y", "g"), ("b", "z", None)), 0.5))
    assert (made.measure, made.chance, made.subset) == ("correct", 0.5, None)
