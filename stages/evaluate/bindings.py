"""Binding splits: rows by whether the bindings of their texts occur in the training captions.

A benchmark of foils may be answered by what is familiar: bindings of true captions occur in training captions more
often than those of foils do. Where all bindings of a row occur there, or none does, that tells nothing. Source: "CLIP
Models Generalize Less Than Compositional Benchmarks Suggest" (BindSplit, openreview 0riiPY0Egp), which splits by
attribute and object; here the same is done with (object, relation, object), in a column of its own.

Labels: `seen` all bindings of the row's texts occur in training captions, `mixed` some do, `unseen` none does,
`without` the texts have none. A row's texts are all of them, the true ones and the foils. Null: no training captions
are known, or the row does not choose between texts of its own (classes, retrieval), or its foils are shuffled words
(ARO's order sets).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import tables
from pipeline.artifact import Artifact
from stages.benchmarks.means import Aggregate, Present, Selector, mean
from stages.benchmarks.rows import Row, Subset
from stages.evaluate.aggregates import aggregate
from stages.text.bindings import Attribute, Bindings, Relation, bindings

Kind = Literal["attributes", "relations"]
KINDS: dict[Kind, str] = {"attributes": "attribute_bindings", "relations": "relation_bindings"}
"""What is bound -> column of the scores table that holds the label."""

LABELS = {
    "seen": "all bindings of the row's texts occur in the training captions",
    "mixed": "some bindings of the row's texts occur in the training captions",
    "unseen": "no binding of the row's texts occurs in the training captions",
    "without": "the row's texts have no binding",
}

Labels = Mapping[tuple[str, str, str], Mapping[str, str]]
"""benchmark, subset, row_id -> column -> label; rows that are not labelled are not there."""

Overlap = dict[str, dict[Kind, dict[str, float | None]]]
"""benchmark -> kind -> "true", "foil" -> share of the bindings of those texts that occur in the training captions."""


def captions(dataset: Artifact) -> Iterator[str]:
    """The distinct captions of the dataset's train split."""
    with tables.connect({"dataset": dataset.table_folder("dataset")}) as sql:
        found = sql.execute("select distinct caption from dataset where split = 'train'")
        while rows := found.fetchmany(10_000):
            yield from (caption for (caption,) in rows)


def label(subsets: Sequence[Subset], training: Iterable[str]) -> tuple[Labels, Overlap]:
    """The labels of all rows that choose between texts of their own, and how familiar true texts and foils are.

    Two million training captions take about two minutes on one core.
    """
    asked = [(one, row) for one in subsets for row in one.rows if _chooses(one, row)]
    bound = {text: bindings(text) for text in dict.fromkeys(text for _, row in asked for text in row.texts)}
    seen = _occurring(training, _union(bound.values()))
    labels = {}
    for subset, row in asked:
        own = _union(bound[text] for text in row.texts)
        labels[subset.benchmark, subset.name, row.row_id] = {
            column: _label(getattr(own, kind), getattr(seen, kind)) for kind, column in KINDS.items()
        }
    return labels, _overlap(asked, bound, seen)


def labelled(rows: list[dict[str, Any]], labels: Labels) -> list[dict[str, Any]]:
    """Rows of the scores table with their labels."""
    return [{**row, **labels.get((row["benchmark"], row["subset"], row["row_id"]), {})} for row in rows]


def splits(scores: pa.Table, *, seed: int) -> dict[str, dict[str, Any]]:
    """Accuracy over all rows of each label, read from a scores table.

    Returns <benchmark>.<kind>.<label> -> facts as `aggregates.aggregate` gives them, of kinds `attributes` and
    `relations`; a label without rows is left out.
    """
    made: dict[str, dict[str, Any]] = {}
    for kind, column in KINDS.items():
        known = scores.filter(pc.is_valid(scores[column]))
        if not known.num_rows:
            continue
        at = known.schema.get_field_index("group")
        grouped = known.set_column(at, known.schema.field("group"), known[column].cast(pa.string()))
        made |= aggregate(grouped, seed=seed, define=partial(_means, kind))
    return made


def _means(kind: Kind, present: Present) -> list[Aggregate]:
    """One mean per benchmark and label, over all rows."""
    cells: dict[tuple[str, str], list[Selector]] = {}
    for benchmark in dict.fromkeys(benchmark for benchmark, _ in present):
        for one in LABELS:
            cells[benchmark, one] = [
                (*key, one) for key, groups in sorted(present.items()) if key[0] == benchmark and one in groups
            ]
    return [
        mean(f"{benchmark}.{kind}.{one}", f"accuracy over all rows; {LABELS[one]}", [rows])
        for (benchmark, one), rows in cells.items()
        if rows
    ]


def _chooses(subset: Subset, row: Row) -> bool:
    if subset.rule == "choice":
        return len(row.texts) == 2
    return subset.rule in ("both", "texts", "square")


def _union(found: Iterable[Bindings]) -> Bindings:
    attributes: set[Attribute] = set()
    relations: set[Relation] = set()
    for one in found:
        attributes |= one.attributes
        relations |= one.relations
    return Bindings(frozenset(attributes), frozenset(relations))


def _occurring(training: Iterable[str], wanted: Bindings) -> Bindings:
    """Those of the wanted bindings that some caption has."""
    return _union(
        Bindings(found.attributes & wanted.attributes, found.relations & wanted.relations)
        for found in map(bindings, training)
    )


def _label(own: frozenset[Any], seen: frozenset[Any]) -> str:
    if not own:
        return "without"
    return "seen" if own <= seen else "unseen" if own.isdisjoint(seen) else "mixed"


def _overlap(asked: Sequence[tuple[Subset, Row]], bound: Mapping[str, Bindings], seen: Bindings) -> Overlap:
    """Of the bindings of true texts and of foils, row by row, the share that occurs in the training captions."""
    counts: dict[tuple[str, Kind, str], tuple[int, int]] = {}
    for subset, row in asked:
        right = {"choice": 1, "square": len(row.texts)}.get(subset.rule, 2)
        for place, text in enumerate(row.texts):
            for kind in KINDS:
                own, known = getattr(bound[text], kind), getattr(seen, kind)
                key = (subset.benchmark, kind, "true" if place < right else "foil")
                some, every = counts.get(key, (0, 0))
                counts[key] = (some + len(own & known), every + len(own))
    shares: Overlap = {}
    for (benchmark, kind, side), (some, every) in counts.items():
        shares.setdefault(benchmark, {}).setdefault(kind, {})[side] = round(some / every, 9) if every else None
    return shares
