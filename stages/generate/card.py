"""The data card of a negatives artifact, Markdown and HTML: acceptance, reasons, blind test, cost, samples."""

from pathlib import Path
from typing import Any

from pipeline import tables
from stages import labels
from stages.generate.refine import sample
from stages.pages import CARDS, changed_words, render

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
        "worst": _worst(facts),
        "labelled": labels.measured(out, facts["types"], facts["paid"], config["price_per_hour"]),
        "cost": any(row["seconds"] or row["reply_tokens"] for row in facts["paid"].values()),
        "samples": {
            kind: [
                {"caption": caption, "text": text, "words": changed_words(caption, text)}
                for _, caption, text, *_ in rows
            ]
            for kind, rows in sample(out, pairs, SAMPLES).items()
        },
        "hours_per_million": seconds / 3600 * 1e6 / facts["captions"] if facts["captions"] else 0.0,
    }
    for name in ("card.md", "card.html"):
        tables.write_text(out / name, render(name, shown, CARDS))


def _worst(facts: dict[str, Any]) -> dict[str, Any] | None:
    """The type that is told best from its captions by text alone, after refining where there was any."""
    refined = bool(facts.get("blind_refined"))
    found = [
        {"type": kind, "scorer": scorer, "refined": refined} | row
        for kind, scorers in (facts["blind_refined"] if refined else facts["blind"]).items()
        for scorer, row in scorers.items()
    ]
    return max(found, key=lambda row: float(row["accuracy"]), default=None)
