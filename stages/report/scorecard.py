"""The page of `degla eval`: scores of one model, or of two beside each other, in the report's own tables."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline import tables
from stages.pages import render
from stages.report.facts import benchmarks, headline, side_by_side
from stages.report.published import published
from stages.verdicts import cut


def write(
    folder: Path,
    labels: dict[str, str],
    *,
    aggregates: dict[str, dict[str, Any]],
    descriptions: dict[str, dict[str, Any]],
    protocols: dict[str, str],
    random_start: bool,
    official: bool,
    settings: dict[str, Any],
) -> None:
    """Write eval.html (one file, no network), eval.md and eval.json (the same facts).

    Args:
        folder: made when it is not there.
        labels: model, as the aggregates name it -> what the page calls it.
        aggregates: name -> the values of each model with their intervals.
        descriptions: model -> activation, preprocessing, tokenizer, device.
        protocols: benchmark.subset -> identity of its measurement.
        random_start: whether the first of two models has random weights.
        official: whether the files were held against known counts and digests.
        settings: what was asked.
    """
    pair = len(labels) == 2
    facts: dict[str, Any] = {
        "labels": labels,
        "title": f"Scores: {labels['after']} against {labels['before']}"
        if pair
        else f"Scores of {next(iter(labels.values()))}",
        "side_by_side": side_by_side(aggregates, random_start=random_start),
        "headline": headline(aggregates, random_start=random_start, than=labels["before"]) if pair else [],
        "benchmarks": benchmarks(aggregates, random_start=random_start),
        "published": published(aggregates, list(labels), official),
        "models": {name: descriptions[name] for name in labels},
        "cut": list(cut(descriptions, labels)),
        "protocols": protocols,
        "official": official,
        "settings": settings,
        "packages": {name: version(name) for name in ("degla", "torch", "open_clip_torch")},
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False)
    tables.write_text(folder / "eval.json", text + "\n")
    for name in ("eval.html", "eval.md"):
        tables.write_text(folder / name, render(name, facts))
