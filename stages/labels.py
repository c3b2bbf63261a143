"""What people say of negatives, kept beside the artifact, and what follows: how many are usable, and what one costs.

A usable negative is grammatical, false of the image, and of its type. Labels are in `$DEGLA_HOME/labels/`, a file per
negatives artifact (LABELS) under its fingerprint: they are no part of it, so nothing is made again for them but the
report, and they are there when the same settings make it again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifact import Artifact, path_digest
from pipeline.errors import UserError
from pipeline.negative_types import KINDS, TRUE_KINDS

if TYPE_CHECKING:
    import pyarrow as pa

QUESTIONS = ("grammatical", "false", "of_type")
"""Columns of a label sheet, each 1, 0, or u (or blank) for undecided; a usable negative is 1 in all of them.

A usable paraphrase is the other way round in `false`.
"""

USABLE = "usable"
"""Column that answers all questions at once."""

_YES, _NO, _OPEN = ("1", "1.0", "true"), ("0", "0.0", "false"), ("", "u")


def usable(table: "pa.Table", command: str, label: str = "") -> "pa.Array | None":
    """Whether each row is usable, null where that is undecided; None where the table has no labels.

    Args:
        table: with a column `type`.
        command: who asks, for the errors.
        label: the column that says so; default: USABLE, or else QUESTIONS, of which one 0 decides.

    Raises UserError for a column that is not there, or a label that is none, with its row.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

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
    is_true = pc.is_in(table["type"].combine_chunks(), pa.array(TRUE_KINDS))
    return pc.and_kleene(pc.and_kleene(grammatical, of_type), pc.xor(false, is_true))


def answers(table: "pa.Table", name: str, command: str) -> "pa.Array":
    """A column of labels as booleans, null = undecided. Raises UserError for anything else, with its row."""
    import pyarrow as pa

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
    from scipy.stats import binomtest

    interval = binomtest(hits, of).proportion_ci(method="wilson")
    return {"value": hits / of, "low": float(interval.low), "high": float(interval.high), "n": of}


def file_of(negatives: Path) -> Path:
    """Where the labels of a negatives artifact are kept, by its folder, also while it is being made."""
    return negatives.parents[2] / "labels" / f"{negatives.name.removesuffix('.partial')}.parquet"


def digests(negatives: Path) -> dict[str, str]:
    """Digest of an artifact's labels under "labels"; empty without labels."""
    path = file_of(negatives)
    return {"labels": path_digest(path)} if path.exists() else {}


def of(negatives: Artifact) -> dict[str, Any]:
    """What the labels of a finished artifact say, as `measured` does."""
    meta = negatives.meta
    price = negatives.manifest.config.get("price_per_hour")
    return measured(negatives.path, meta.get("types", {}), meta.get("paid", {}), price)


def measured(
    negatives: Path, types: Mapping[str, Any], paid: Mapping[str, Any], price_per_hour: float | None = None
) -> dict[str, Any]:
    """Type -> what its labels say; types without a label are left out. Labels of rows not accepted now do not count.

    `precision`: share of usable ones among the accepted; `undecided`: labelled rows left out of it; `yield`: usable
    negatives per caption, acceptance times precision; `tokens`, `seconds` and `money`: of one usable negative, None
    where nothing was requested or none is usable.

    Args:
        negatives: the artifact's folder.
        types: `acceptance` and `pairs` of each type.
        paid: `prompt_tokens`, `reply_tokens` and `seconds` of each type.
        price_per_hour: of the generating machine.
    """
    from pipeline import tables

    if not file_of(negatives).exists():
        return {}
    with tables.connect({"negatives": negatives}) as sql:
        sql.read_parquet(str(file_of(negatives))).create_view("labels")
        rows = sql.sql(
            """select labels.* from labels semi join (select * from negatives where status = 'accepted') as accepted
               on labels.pair_id = accepted.pair_id and labels.type = accepted.type
               and labels.candidate = accepted.text"""
        ).to_arrow_table()
    is_usable = usable(rows, "label")
    assert is_usable is not None
    answered = list(zip(rows["type"].to_pylist(), is_usable.to_pylist(), strict=True))
    found = {}
    for kind in KINDS:
        said = [answer for one, answer in answered if one == kind]
        if not said or kind not in types:
            continue
        precision = share(said.count(True), len(said) - said.count(None))
        good = (precision["value"] or 0.0) * types[kind]["pairs"].get("accepted", 0)
        cost = paid.get(kind)
        seconds = cost["seconds"] / good if cost and good else None
        found[kind] = {
            "precision": precision,
            "undecided": said.count(None),
            "yield": {
                name: None if value is None else value * types[kind]["acceptance"]
                for name, value in precision.items()
                if name != "n"
            },
            "tokens": (cost["prompt_tokens"] + cost["reply_tokens"]) / good if cost and good else None,
            "seconds": seconds,
            "money": None if seconds is None or price_per_hour is None else seconds / 3600 * price_per_hour,
        }
    return found
