"""Where a caption's paraphrase comes from, and that each is drawn equally often."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import UserError
from stages.train.paraphrases import Paraphrases

REWRITES = [[[1, 10], [1, 11, 12]], None, None, [[1, 13]], None, None]
GROUPS = np.array([4, 0, 4, 4, 2, 0])
"""Rows 0, 2 and 3 show one image, rows 1 and 5 another; row 4 is alone."""


def paraphrases(*sources: Any, rewrites: Any = REWRITES, first: int = 0) -> Paraphrases:
    column = pa.array(rewrites, pa.list_(pa.list_(pa.int32())))
    return Paraphrases(column[first:], GROUPS[first:], sources)


def test_absences_are_a_source_beside_the_others() -> None:
    lists = pa.list_(pa.list_(pa.int32()))
    absences = pa.array([[[1, 20]], [[1, 21]], None, [[1, 23, 24]], None, None], lists)

    def of(row: int, *sources: Any) -> set[Any]:
        return set(drawn(Paraphrases(pa.array(REWRITES, lists), GROUPS, sources, absences), row))

    assert of(0, "absences") == {(1, 20)} and of(2, "absences") == {-1}
    assert of(0, "absences", "rewrites", "captions") == {2, 3, (1, 10), (1, 11, 12), (1, 20)}
    assert of(3, "rewrites", "absences") == {(1, 13), (1, 23, 24)}
    assert of(1, "captions", "absences") == {5, (1, 21)}


def drawn(given: Paraphrases, row: int) -> dict[Any, float]:
    """What a row drew in many epochs: another row's number or a rewrite's tokens -> share."""
    numbers = [int(given.draw(0, epoch)[row]) for epoch in range(600)]
    count = len(given.draw(0, 0))
    said = [n if n < count else tuple(given.tokens(n - count).tolist()) for n in numbers]
    return {what: said.count(what) / len(said) for what in set(said)}


@pytest.mark.parametrize(
    ("sources", "row", "expected"),
    [
        (("rewrites",), 0, {(1, 10), (1, 11, 12)}),
        (("rewrites",), 3, {(1, 13)}),
        (("rewrites",), 2, {-1}),
        (("captions",), 0, {2, 3}),
        (("captions",), 5, {1}),
        (("captions",), 4, {-1}),
        (("rewrites", "captions"), 0, {2, 3, (1, 10), (1, 11, 12)}),
        (("captions", "rewrites"), 3, {0, 2, (1, 13)}),
    ],
)
def test_each_paraphrase_of_a_caption_is_drawn_equally_often(sources: Any, row: int, expected: set[Any]) -> None:
    found = drawn(paraphrases(*sources), row)
    assert found.keys() == expected
    assert found == pytest.approx(dict.fromkeys(expected, 1 / len(expected)), abs=0.07)


def test_a_slice_of_the_column_has_its_own_rewrites() -> None:
    assert drawn(paraphrases("rewrites", first=3), 0).keys() == {(1, 13)}


def test_seed_and_epoch_alone_decide() -> None:
    one, two = paraphrases("rewrites", "captions"), paraphrases("rewrites", "captions")
    draws = {(seed, epoch): one.draw(seed, epoch).tobytes() for seed in range(3) for epoch in range(3)}
    assert draws == {place: two.draw(*place).tobytes() for place in draws} and len(set(draws.values())) > 6


@pytest.mark.parametrize("sources", [("rewrites",), ("rewrites", "captions")])
def test_no_paraphrase_at_all_is_an_error_that_says_how_to_get_some(sources: Any) -> None:
    none = pa.array([None, None], pa.list_(pa.list_(pa.int32())))
    with pytest.raises(
        UserError, match=r"no caption of the dataset has a paraphrase .* --set generate\.paraphrases=true"
    ):
        Paraphrases(none, np.array([0, 1]), sources)
