import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.generate import refine
from stages.generate.config import Refine
from stages.generate.refine import Row

NOUNS = ("dog", "cat", "boy", "girl", "horse", "bird", "chair", "car", "house", "tree", "ball", "boat")


def rows(count: int, tell: float) -> list[Row]:
    """Captions and negatives of one kind; a share `tell` of the negatives carries a word no caption has."""
    rng = random.Random(0)
    found = []
    for index in range(count):
        one, two, three = rng.sample(NOUNS, 3)
        mark = " really" if rng.random() < tell else ""
        found.append(Row(f"p{index // 3}", f"A {one} near a {two}.", f"A {three} near a {two}{mark}."))
    return found


def table(rows: list[Row]) -> list[dict[str, Any]]:
    """Accepted candidates, and one that is not."""
    found: list[dict[str, Any]] = [
        {"pair_id": str(i), "type": "swap_nouns", "status": "accepted", "reason": None, "text": row.negative,
         "weight": 1.0, "likelihood": row.likelihood}
        for i, row in enumerate(rows)
    ]  # fmt: skip
    return [*found, {**found[0], "status": "rejected", "reason": "cut", "text": None}]


def refined(rows: list[Row], test: refine.Examined, mode: Refine) -> list[dict[str, Any]]:
    captions = {str(i): (row.image_key, row.caption) for i, row in enumerate(rows)}
    once, again = (refine.refine(table(rows), captions, {"swap_nouns": test}, mode, 0.5) for _ in range(2))
    assert once == again and once[-1] == table(rows)[-1]
    return once[:-1]


def left(rows: list[Row], after: list[dict[str, Any]]) -> list[Row]:
    return [row for row, candidate in zip(rows, after, strict=True) if candidate["status"] == "accepted"]


def test_negatives_like_captions_cannot_be_told() -> None:
    test = refine.examine_type(rows(600, 0))
    found = test.blind["ngrams"]
    assert found.low < 0.5 < found.high and found.n == 600


@pytest.mark.parametrize("mode", ["drop", "rebalance"])
def test_negatives_with_a_tell_are_told_and_go_until_they_are_not(mode: Refine) -> None:
    marked = rows(600, 0.5)
    test = refine.examine_type(marked)
    assert test.blind["ngrams"].low > 0.7
    after = refined(marked, test, mode)
    assert {row["reason"] for row in after} == {None, "blind"} and {row["weight"] for row in after} == {1.0}
    kept = left(marked, after)
    assert 100 < len(kept) < 400
    assert sum("really" in row.negative for row in kept) < 0.1 * len(kept)
    assert refine.examine_type(kept).blind["ngrams"].accuracy < 0.6


def test_rebalancing_stops_where_a_judge_of_other_folds_guesses() -> None:
    rng, words = random.Random(0), [first + noun for first in "bcdfghklmnprstvw" for noun in NOUNS]
    usual = [1 / (rank + 3) for rank in range(len(words))]
    told = []  # captions have usual words, negatives any: many weak tells
    for index in range(600):
        one, two = rng.choices(words, usual, k=2)
        told.append(Row(f"p{index // 3}", f"A {one} near a {two}.", f"A {rng.choice(words)} near a {two}."))
    exact, aimed = refine.examine_type(told), refine.examine_type(told, aim=True)
    assert exact.blind == aimed.blind and exact.blind["ngrams"].low > 0.7 and (aimed.keep >= exact.keep).all()
    few, more = (left(told, refined(told, test, "rebalance")) for test in (exact, aimed))
    assert len(few) < len(more) < 400
    by_few, by_more = (refine.examine_type(kept, seed=refine.CARD).blind["ngrams"] for kept in (few, more))
    assert by_few.high < 0.5 and by_more.low < 0.5 < by_more.high


def test_another_seed_parts_the_images_otherwise() -> None:
    marked = rows(600, 0.5)
    one, other = (refine.examine_type(marked, seed=seed) for seed in (0, refine.CARD))
    assert one.blind != other.blind and one.blind["ngrams"].low > 0.7 < other.blind["ngrams"].low


def test_reweighting_keeps_every_negative_and_weighs_as_rebalancing_keeps() -> None:
    marked = rows(600, 0.5)
    test = refine.examine_type(marked)
    after = refined(marked, test, "reweight")
    assert all(row["status"] == "accepted" and 0 <= row["weight"] <= 1 for row in after)
    told = [row["weight"] for row, text in zip(after, marked, strict=True) if "really" in text.negative]
    assert sum(told) < 0.1 * len(told)
    assert abs(sum(row["weight"] for row in after) - len(left(marked, refined(marked, test, "rebalance")))) < 40


def test_a_second_scorer_tells_what_the_first_does_not() -> None:
    rng = random.Random(0)
    odd = [row._replace(likelihood=rng.gauss(3, 1)) for row in rows(600, 0)]
    test = refine.examine_type(odd)
    assert set(test.blind) == {"ngrams", "likelihood"} and test.blind["likelihood"].low > 0.95
    assert test.gaps(odd).shape == (600, 2) and len(left(odd, refined(odd, test, "drop"))) < 60


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=200),
    st.integers(1, 2),
    st.integers(1, 20),
)
def test_what_is_kept_is_as_often_for_as_against(values: list[tuple[float, float]], scorers: int, sides: int) -> None:
    gaps = np.array(values)[:, :scorers]
    shares, cells = refine.keep_shares(gaps, sides), refine._cells(gaps, sides)
    assert ((shares >= 0) & (shares <= 1)).all() and cells.min() >= 0 and cells.max() < len(shares)
    kept = np.bincount(cells, shares[cells], minlength=len(shares))
    assert np.allclose(kept, kept[::-1])


def test_a_gap_and_its_opposite_lie_in_mirrored_cells_and_one_is_inside() -> None:
    gaps = np.array([[1.0], [-1.0], [0.05], [-0.05], [0.3], [-0.3]])
    cells = refine._cells(gaps, 20)
    assert (cells[::2] + cells[1::2] == 39).all() and cells[0] == 39
