"""What labels say: one column or three, what is undecided, and the interval of a share."""

from itertools import product
from math import sqrt

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from stages import labels


def table(**columns: list[object]) -> pa.Table:
    return pa.table({"type": ["swap_nouns"] * len(next(iter(columns.values()))), **columns})


def test_a_negative_is_usable_when_all_answers_are_1_and_not_when_one_is_0() -> None:
    rows = list(product("10u", repeat=3))
    columns = dict(zip(labels.QUESTIONS, map(list, zip(*rows, strict=True)), strict=True))
    found = labels.usable(pa.table({"type": ["swap_nouns"] * len(rows), **columns}), "check")
    assert found is not None
    assert found.to_pylist() == [False if "0" in row else None if "u" in row else True for row in rows]


def test_a_paraphrase_is_usable_when_it_is_not_false() -> None:
    rows = pa.table({"type": ["paraphrase", "paraphrase"], "grammatical": [1, 1], "false": [0, 1], "of_type": [1, 1]})
    found = labels.usable(rows, "check")
    assert found is not None and found.to_pylist() == [True, False]


@pytest.mark.parametrize(
    "column", [["1", "0", " U ", "", None], [1, 0, None, None, None], [True, False, None, None, None],
               ["1.0", "0.0", "u", "", ""], [1.0, 0.0, None, None, None]],
)  # fmt: skip
def test_one_column_however_it_is_written(column: list[object]) -> None:
    for name, label in (("usable", ""), ("good", "good")):
        found = labels.usable(table(**{name: column}), "check", label)
        assert found is not None and found.to_pylist() == [True, False, None, None, None]


def test_no_labels_is_none_and_a_wrong_one_is_said_with_its_row() -> None:
    assert labels.usable(table(grammatical=["1"], false=["1"]), "check") is None
    with pytest.raises(UserError, match="check: row 2 has usable 'maybe'; expected 1, 0, or u"):
        labels.usable(table(usable=["1", "maybe"]), "check")
    with pytest.raises(UserError, match="check: there is no column 'good', found type, usable"):
        labels.usable(table(usable=["1"]), "check", "good")


@settings(deadline=None)  # the first call imports scipy
@given(of=st.integers(1, 500), part=st.floats(0, 1))
def test_the_interval_of_a_share_is_wilson_s(of: int, part: float) -> None:
    hits, z = round(part * of), 1.959964
    p = hits / of
    centre, half = p + z * z / (2 * of), z * sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    found = labels.share(hits, of)
    assert found == pytest.approx(
        {"value": p, "low": (centre - half) / (1 + z * z / of), "high": (centre + half) / (1 + z * z / of), "n": of},
        abs=1e-6,
    )
    assert labels.share(0, 0)["value"] is None
