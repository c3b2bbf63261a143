"""The data card of a negatives artifact, Markdown and HTML: acceptance, reasons, blind test, cost, samples."""

from pathlib import Path
from typing import Any

from pipeline import tables
from stages.generate.refine import sample
from stages.pages import CARDS, render

SAMPLES = 50
"""Accepted negatives shown per type."""


def write(out: Path, pairs: Path, facts: dict[str, Any], config: dict[str, Any]) -> None:
    """Write card.md and card.html beside a negatives table.

    Args:
        out: folder of the negatives table.
        pairs: folder of the pairs table.
        facts: model, captions, types (see `negatives.counts`), blind, paid, and blind_refined where there is one.
        config: the stage's settings.
    """
    seconds = sum(row["seconds"] for row in facts["paid"].values())
    shown = {
        "facts": facts,
        "config": config,
        "samples": {kind: [row[1:3] for row in rows] for kind, rows in sample(out, pairs, SAMPLES).items()},
        "hours_per_million": seconds / 3600 * 1e6 / facts["captions"] if facts["captions"] else 0.0,
    }
    for name in ("card.md", "card.html"):
        tables.write_text(out / name, render(name, shown, CARDS))
