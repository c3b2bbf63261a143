import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages import artefacts
from stages.artefacts import Row

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


def test_negatives_like_captions_cannot_be_told() -> None:
    even = rows(600, 0)
    found = artefacts.test(even, artefacts.train(even))
    assert found.low < 0.5 < found.high and abs(found.pairwise - 0.5) < 0.08 and found.n == 600


def test_negatives_with_a_tell_are_told_and_dropped_until_they_are_not() -> None:
    marked = rows(600, 0.5)
    classifier = artefacts.train(marked)
    found = artefacts.test(marked, classifier)
    assert found.low > 0.6 and found.pairwise > 0.7
    examined = {"swap_nouns": artefacts.Examined(found, classifier, artefacts.keep_shares(classifier.gaps(marked)))}
    table = [
        {"pair_id": str(i), "type": "swap_nouns", "status": "accepted", "reason": None, "text": row.negative}
        for i, row in enumerate(marked)
    ]
    table.append({"pair_id": "0", "type": "swap_nouns", "status": "rejected", "reason": "cut", "text": None})
    captions = {str(i): (row.image_key, row.caption) for i, row in enumerate(marked)}
    refined = artefacts.refine(table, captions, examined)
    assert refined == artefacts.refine(table, captions, examined)
    assert refined[-1] == table[-1] and {row["reason"] for row in refined[:-1]} == {None, "blind"}
    left = [row for row, after in zip(marked, refined, strict=False) if after["status"] == "accepted"]
    assert 100 < len(left) < 400
    assert abs(float(np.sign(classifier.gaps(left)).mean())) < 0.2
    assert sum("really" in row.negative for row in left) < 0.1 * len(left)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=200))
def test_what_is_kept_is_as_often_for_as_against(values: list[float]) -> None:
    gaps = np.array(values)
    shares, cells = artefacts.keep_shares(gaps), artefacts._cells(gaps)
    assert ((shares >= 0) & (shares <= 1)).all() and cells.min() >= 0 and cells.max() < 2 * artefacts.CELLS
    kept = np.bincount(cells, shares[cells], minlength=2 * artefacts.CELLS)
    assert np.allclose(kept, kept[::-1])


def test_a_gap_and_its_opposite_lie_in_mirrored_cells_and_one_is_inside() -> None:
    gaps = np.array([1.0, -1.0, 0.05, -0.05, 0.3, -0.3])
    cells = artefacts._cells(gaps)
    assert (cells[::2] + cells[1::2] == 2 * artefacts.CELLS - 1).all() and cells[0] == 2 * artefacts.CELLS - 1
