"""report: one page that says what was made, whether it helped, and how sure that is.

Writes report.html (one file, no network), report.md, report.json (the same facts) and figures/*.svg. Equal inputs give
equal bytes. Whatever came from data (captions, replies, file names) is escaped.
"""

import json
from pathlib import Path

from pydantic import Field

from pipeline import tables
from pipeline.artifact import path_digest
from pipeline.config import Config as BaseConfig
from pipeline.errors import UserError
from pipeline.schema import NEGATIVE_TYPES
from pipeline.stage import Inputs, Progress, Stage
from stages.benchmarks.loaders import REGISTRY
from stages.pages import TEMPLATES, data_uri, percent, render, thumbnail
from stages.report.facts import PUBLISHED, Facts, gather

RETENTION = ("zeroshot", "retrieval")


class Config(BaseConfig):
    """What the page shows."""

    title: str = Field("degla report", min_length=1, max_length=120, description="heading of the page")
    examples: int = Field(12, ge=0, le=100, description="held-out pictures shown with their negatives and scores")
    thumbnail: int = Field(224, ge=32, le=1024, description="longest side of the pictures shown, pixels")
    comparison: Path | None = Field(
        None, description="comparison.json of an ablation, whose rows are shown beside this run; null = none"
    )


def outside(config: Config) -> dict[str, str]:
    """Digests of the templates, the benchmark registry, the published scores and the comparison."""
    read = {"templates": TEMPLATES, "registry": REGISTRY, "published": PUBLISHED}
    if config.comparison:
        if not config.comparison.is_file():
            raise UserError(
                "report",
                f"there is no {config.comparison}",
                "comparison.json, which degla run ablation writes",
                "set report.comparison",
            )
        read["comparison"] = config.comparison
    return {name: path_digest(path) for name, path in read.items()}


def run(config: Config, inputs: Inputs, out: Path, progress: Progress) -> Facts:
    """Make the `report` artifact. Raises UserError when a held-out picture to be shown cannot be read."""
    facts = gather(config, inputs)
    progress("report", 1, 4)
    figures = draw(facts, inputs)
    for name, figure in figures.items():
        _write(out / "figures" / f"{name}.svg", figure["svg"])
    progress("report", 2, 4)
    pictures = _thumbnails(facts, inputs, config.thumbnail)
    _write(out / "report.json", json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    progress("report", 3, 4)
    for name in ("report.html", "report.md"):
        _write(out / name, render(name, facts, figures=figures, pictures=pictures))
    progress("report", 4, 4)
    return {"headline": facts["headline"], "figures": list(figures)}


def draw(facts: Facts, inputs: Inputs) -> dict[str, Facts]:
    """Figures by name: {svg, title, alt}; only those there are numbers for."""
    from stages.report import figures

    found: dict[str, Facts] = {}
    subsets = [row for benchmark in facts["benchmarks"] for row in benchmark["rows"] if row["subset"]]
    kept = [row for row in subsets if row["benchmark"].endswith(RETENTION)]
    by_family = {
        "composition": [row for row in subsets if row["benchmark"] not in ("heldout", "robust") and row not in kept],
        "heldout": [row for row in subsets if row["benchmark"] == "heldout"],
        "retention": kept,
    }
    attacked = [
        row for one in facts["benchmarks"] if one["key"] == "robust" for row in one["rows"] if not row["subset"]
    ]
    titles = {
        "composition": "Composition, by subset",
        "heldout": "Held-out negatives, by type",
        "retention": "What the model knew, by set",
    }
    for name, rows in by_family.items():
        if rows:
            lines = [(_short(row["name"]), row["before"], row["after"], row["chance"]) for row in rows]
            found[name] = _figure(figures.before_after(lines), titles[name], _alt(rows))
    if attacked:
        lines = [(row["name"], row["before"], row["after"], row["chance"]) for row in attacked]
        found["robust"] = _figure(
            figures.before_after(lines), "Under attack, and the same rows untouched", _alt(attacked)
        )
    if subsets:
        cells = [
            (_short(row["name"]), _blind(row), row["before"]["value"], row["after"]["value"], row["difference"])
            for rows in by_family.values()
            for row in rows
        ]
        alt = "One line per set: blind judge, before, after, and the change; the numbers are in the tables"
        found["overview"] = _figure(figures.overview(cells), "Every set at a glance", alt)
    if kept:
        changed = [(_short(row["name"]), row["difference"]) for row in kept]
        found["forgetting"] = _figure(figures.changes(changed), "Forgetting, by set", _alt(kept))
    if trade := facts["trade"]:
        alt = f"{trade['up']} against {trade['across']}: " + "; ".join(
            f"{one['label']} {percent(one['up']['value'])} and {percent(one['across']['value'])}"
            for one in (*trade["models"], *trade["rivals"])
        )
        found["trade"] = _figure(figures.trade(trade), "Composition against retention", alt)
    if facts["ablation"] and facts["ablation"]["types"]:
        lost = facts["ablation"]["types"]
        rows = [kind for kind in NEGATIVE_TYPES if kind in lost]
        columns = list(lost[rows[0]])
        alt = "Points that a subset loses when the model trains without a negative type"
        svg = figures.heat([[lost[kind][name] for name in columns] for kind in rows], rows, columns)
        found["types"] = _figure(svg, "What each negative type gives, by subset", alt)
    if types := facts["generation"]["types"]:
        accepted = "; ".join(f"{row['type']} {percent(row['accepted'])} accepted" for row in types)
        svg = figures.acceptance([(row["type"], row["counts"]) for row in types])
        found["acceptance"] = _figure(svg, "Negatives that passed the checks, by type", accepted)
    if terms := facts["training"]["terms"]:
        steps = tables.read(inputs["model"].path / "steps").sort_by("step")
        curves = [(name, steps[name].to_pylist()) for name in (*(row["term"] for row in terms), "logit_scale", "lr")]
        alt = "; ".join(f"{row['term']} {row['first']:.3g} to {row['last']:.3g}" for row in terms)
        found["training"] = _figure(figures.training(steps["step"].to_pylist(), curves), "Training curves", alt)
    return found


def _figure(svg: str, title: str, alt: str) -> Facts:
    return {"svg": svg, "title": title, "alt": alt, "uri": data_uri("image/svg+xml", svg.encode())}


def _blind(row: Facts) -> float | None:
    """The best judge that saw no picture."""
    return max((one["value"] for one in row.get("blind", {}).values()), default=None)


def _alt(rows: list[Facts]) -> str:
    return "; ".join(
        f"{row['name']} {percent(row['before']['value'])} before, {percent(row['after']['value'])} after"
        for row in rows
    )


def _short(name: str) -> str:
    return name.removesuffix(".top1").removesuffix(".macro")


def _thumbnails(facts: Facts, inputs: Inputs, side: int) -> dict[str, str]:
    """Data URIs of the gallery's pictures by pair id."""
    pairs = inputs["pairs"]
    root = pairs.path / pairs.meta["image_root"]
    return {card["pair_id"]: thumbnail(root / card["image_uri"], side) for card in facts["gallery"]}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


STAGE = Stage(
    name="report",
    makes="report",
    needs=("pairs", "negatives", "dataset", "model", "scores"),
    version=1,
    config=Config,
    outside=outside,
    run=run,
)
