"""Writing the report: the facts are gathered once and told as a page, as Markdown, as JSON and in figures."""

import json
from pathlib import Path
from typing import Any

from pipeline import tables
from pipeline.stage import Inputs, Progress
from stages.pages import render, thumbnail
from stages.report.config import Config
from stages.report.facts import gather
from stages.report.figures import draw


def write(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Write report.html, report.md, report.json and figures/*.svg; returns the headline and the figures' names.

    Raises UserError when a held-out image to be shown cannot be read.
    """
    facts = gather(config, inputs)
    progress("report", 1, 4)
    figures = draw(facts, inputs["model"])
    for name, figure in figures.items():
        tables.write_text(out / "figures" / f"{name}.svg", figure.svg)
    progress("report", 2, 4)
    images = _thumbnails(facts["gallery"], inputs, config.thumbnail)
    tables.write_text(out / "report.json", json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    progress("report", 3, 4)
    for name in ("report.html", "report.md"):
        tables.write_text(out / name, render(name, facts, figures=figures, pictures=images))
    progress("report", 4, 4)
    return {"headline": facts["headline"], "figures": list(figures)}


def _thumbnails(gallery: list[dict[str, Any]], inputs: Inputs, side: int) -> dict[str, str]:
    """Data URIs of the gallery's images by pair id."""
    pairs = inputs["pairs"]
    root = pairs.path / pairs.meta["image_root"]
    return {card["pair_id"]: thumbnail(root / card["image_uri"], side) for card in gallery}
