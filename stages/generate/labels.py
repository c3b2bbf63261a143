"""What a person says of a negative, and what follows from it: shares of usable ones with their intervals.

A usable negative is grammatical, false of the image, and of its type.
"""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import binomtest

from pipeline.errors import UserError
from pipeline.negative_types import PARAPHRASE

QUESTIONS = ("grammatical", "false", "of_type")
"""Columns of a label sheet, each 1, 0, or u (or blank) for undecided; a usable negative is 1 in all of them.

A usable paraphrase is the other way round in `false`.
"""

USABLE = "usable"
"""Column that answers all questions at once."""

_YES, _NO, _OPEN = ("1", "1.0", "true"), ("0", "0.0", "false"), ("", "u")


def usable(table: pa.Table, command: str, label: str = "") -> pa.Array | None:
    """Whether each row is usable, null where that is undecided; None where the table has no labels.

    Args:
        table: with a column `type`.
        command: who asks, for the errors.
        label: the column that says so; default: USABLE, or else QUESTIONS, of which one 0 decides.

    Raises UserError for a column that is not there, or a label that is none, with its row.
    """
    names = table.column_names
    if label and label not in names:
        raise UserError(
            command, f"there is no column {label!r}, found {', '.join(names)}", "a column of 1, 0 and u", "--label"
        )
    if label or USABLE in names:
        return answers(table, label or USABLE, command)
    if not set(QUESTIONS) <= set(names):
        return None
    grammatical, false, of_type = (answers(table, name, command) for name in QUESTIONS)
    is_paraphrase = pc.equal(table["type"].combine_chunks(), PARAPHRASE)
    return pc.and_kleene(pc.and_kleene(grammatical, of_type), pc.xor(false, is_paraphrase))


def answers(table: pa.Table, name: str, command: str) -> pa.Array:
    """A column of labels as booleans, null = undecided. Raises UserError for anything else, with its row."""
    found: list[bool | None] = []
    for row, value in enumerate(table[name].cast(pa.string()).to_pylist(), 1):
        said = (value or "").strip().lower()
        if said not in (*_YES, *_NO, *_OPEN):
            what = f"row {row} has {name} {value!r}"
            raise UserError(command, what, "1, 0, or u for undecided", f"mend column {name}")
        found.append(None if said in _OPEN else said in _YES)
    return pa.array(found, pa.bool_())


def share(hits: int, of: int) -> dict[str, Any]:
    """A share with its 95 % interval (Wilson's), as value, low, high and n; without rows all but n are None."""
    if not of:
        return {"value": None, "low": None, "high": None, "n": 0}
    interval = binomtest(hits, of).proportion_ci(method="wilson")
    return {"value": hits / of, "low": float(interval.low), "high": float(interval.high), "n": of}
