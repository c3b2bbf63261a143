"""The checks on anybody's negatives: a verdict per row, a summary per type, and how far labels agree with them."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.crew import Crew, cores
from pipeline.errors import UserError
from pipeline.negative_types import KINDS
from pipeline.stage import Progress, silent
from stages import labels
from stages.generate import sheets
from stages.generate.checks import Verdict, validate

COLUMNS = ("type", "caption", "candidate")
SIBLINGS = "siblings"
ADDED = ("status", "reason", "text")

CHUNK = 1000
"""Rows a process takes at a time; a file of no more is checked without further processes."""

Row = tuple[str, str, str | None, list[str]]
"""type, caption, candidate, siblings"""


def read(path: Path) -> pa.Table:
    """Read candidates; a column of siblings, where there is one, becomes lists of texts.

    Raises UserError as `sheets.read` does, and for a row without a type that is known, or without a caption.
    """
    table = sheets.read(path, "check", COLUMNS)
    for row, (kind, caption) in enumerate(zip(*(table[name].to_pylist() for name in COLUMNS[:2]), strict=True), 1):
        if kind not in KINDS:
            raise UserError("check", f"row {row} has type {kind!r}", f"one of {', '.join(KINDS)}", "mend column type")
        if not (caption or "").strip():
            raise UserError("check", f"row {row} has no caption", "the true caption", "mend column caption")
    if SIBLINGS in table.column_names:
        place, column = table.column_names.index(SIBLINGS), table[SIBLINGS]
        if not pa.types.is_list(column.type):
            split = [[one.strip() for one in (text or "").split("|")] for text in column.cast(pa.string()).to_pylist()]
            column = pa.array(split)
        table = table.set_column(place, SIBLINGS, column.cast(pa.list_(pa.string())))
    return table


def check(table: pa.Table, progress: Progress = silent) -> pa.Table:
    """The same rows with the verdicts: columns ADDED, in place of any of these names.

    Args:
        table: COLUMNS, and SIBLINGS as lists of texts where the candidates' images have other captions.
        progress: counts rows.
    """
    empty: list[None] = [None] * table.num_rows
    siblings = table[SIBLINGS].to_pylist() if SIBLINGS in table.column_names else empty
    texts = (table[name].to_pylist() for name in COLUMNS)
    rows = [(kind, caption, text, near or []) for kind, caption, text, near in zip(*texts, siblings, strict=True)]
    verdicts: list[Verdict] = []
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    with Crew("check", cores()) as crew:
        for some in crew.map(_verdicts, chunks):
            verdicts += some
            progress("rows", len(verdicts), len(rows))
    kept = table.drop_columns([name for name in ADDED if name in table.column_names])
    for name in ADDED:
        kept = kept.append_column(name, pa.array([getattr(verdict, name) for verdict in verdicts], pa.string()))
    return kept


def _verdicts(rows: Iterable[Row]) -> list[Verdict]:
    return [validate(*row) for row in rows]


def summary(checked: pa.Table, usable: pa.Array | None = None) -> dict[str, Any]:
    """Per type and over all rows: rows by status, rejections by reason, and what labels say of the checks.

    Args:
        checked: as `check` gives it.
        usable: a label per row, null = undecided.

    `precision` is the share of usable ones among the accepted, `recall` the share of accepted ones among the usable,
    `unusable_accepted` the share of accepted ones among the unusable; undecided rows are left out of all three.
    """
    columns = (checked[name].to_pylist() for name in ("type", "status", "reason"))
    labelled = [None] * checked.num_rows if usable is None else usable.to_pylist()
    rows = Counter(zip(*columns, labelled, strict=True))
    kinds = [kind for kind in KINDS if any(row[0] == kind for row in rows)]
    return {
        "types": {kind: _summary(rows, kind, usable is not None) for kind in kinds},
        "all": _summary(rows, None, usable is not None),
    }


def _summary(rows: Counter[Any], wanted: str | None, is_labelled: bool) -> dict[str, Any]:
    candidates, reasons, labelled = Counter[str](), Counter[str](), Counter[tuple[bool, bool]]()
    undecided = 0
    for (kind, status, reason, usable), count in rows.items():
        if wanted not in (None, kind):
            continue
        candidates[status] += count
        if reason:
            reasons[reason] += count
        if usable is None:
            undecided += count
        else:
            labelled[usable, status == "accepted"] += count
    found: dict[str, Any] = {
        "candidates": dict(sorted(candidates.items())),
        "acceptance": candidates["accepted"] / candidates.total(),
        "reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
    }
    if is_labelled:
        good = labelled[True, True]
        found["labels"] = {
            "usable": good + labelled[True, False],
            "unusable": labelled[False, True] + labelled[False, False],
            "undecided": undecided,
            "precision": labels.share(good, good + labelled[False, True]),
            "recall": labels.share(good, good + labelled[True, False]),
            "unusable_accepted": labels.share(labelled[False, True], labelled[False, True] + labelled[False, False]),
        }
    return found
