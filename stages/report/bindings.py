"""Binding splits for the page: scores by whether the training captions have the bindings of a row."""

from collections.abc import Mapping
from typing import Any

from stages.benchmarks.registry import registry

KINDS = {"attributes": "attribute and object", "relations": "object, relation, object"}
LABELS = {"seen": "all seen", "mixed": "some seen", "unseen": "none seen", "without": "no binding"}


def tables(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One table per benchmark and kind of binding, in the order of the scores.

    Args:
        found: as evaluate records it: {splits: <benchmark>.<kind>.<label> -> facts of an aggregate, overlap: benchmark
            -> kind -> {true, foil}}.

    Returns:
        {benchmark: its title, kind, overlap: {true, foil}, rows: [facts with `label`]} each; a kind without any
        binding in a benchmark is left out.
    """
    made: dict[tuple[str, str], dict[str, Any]] = {}
    for name, facts in found["splits"].items():
        benchmark, kind, label = name.split(".")
        title = registry().get(benchmark, {"title": benchmark})["title"]
        overlap = found["overlap"][benchmark][kind]
        one = made.setdefault(
            (benchmark, kind), {"benchmark": title, "kind": KINDS[kind], "overlap": overlap, "rows": []}
        )
        one["rows"].append({"name": name, "label": LABELS[label]} | facts)
    order = list(dict.fromkeys(benchmark for benchmark, _ in made))
    return [
        one
        for (benchmark, _), one in sorted(made.items(), key=lambda item: order.index(item[0][0]))
        if any(row["label"] != LABELS["without"] for row in one["rows"])
    ]
