"""The page of `degla eval`: scores of one model, or of two beside each other, in the report's own tables."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline import tables
from stages.evaluate.stage import Config, Measured
from stages.pages import render
from stages.report.facts import benchmarks
from stages.report.published import published


def write(folder: Path, found: Measured, labels: dict[str, str], config: Config) -> None:
    """Write eval.html (one file, no network), eval.md and eval.json (the same facts).

    Args:
        folder: made when it is not there.
        found: what was measured.
        labels: model, as `found` names it -> what the page calls it.
        config: what was asked.
    """
    official = config.official is not False
    facts: dict[str, Any] = {
        "labels": labels,
        "benchmarks": benchmarks(found.aggregates),
        "published": published(found.aggregates, list(labels), official),
        "models": {name: found.descriptions[name] for name in labels},
        "protocols": found.protocols,
        "official": official,
        "settings": config.identity(),
        "resamples": config.resamples,
        "packages": {name: version(name) for name in ("degla", "torch", "open_clip_torch")},
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False)
    tables.write_text(folder / "eval.json", text + "\n")
    for name in ("eval.html", "eval.md"):
        tables.write_text(folder / name, render(name, facts))
