"""The figures of the report: which there are, of which facts, and what each says without being seen.

Adding one is a function and a line of `FIGURES`; how it is drawn is charts.py.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pipeline import tables
from pipeline.artifact import Artifact
from pipeline.negative_types import NEGATIVE_TYPES
from stages.benchmarks.loaders import Family, about
from stages.pages import data_uri, percent
from stages.report import charts

Report = Mapping[str, Any]
"""What facts.gather returns."""

ScoreRow = Mapping[str, Any]
"""One aggregate with its name, before, after and difference."""


class ReportFigure(NamedTuple):
    """One figure of the page.

    Attributes:
        title: stands above it.
        svg: the drawing.
        alt: its numbers in words, for those who do not see it.
    """

    title: str
    svg: str
    alt: str

    @property
    def uri(self) -> str:
        """The drawing as a link that holds it."""
        return data_uri("image/svg+xml", self.svg.encode())


Drawn = tuple[str, str]
"""SVG and alternative text."""


def draw(report: Report, model: Artifact) -> dict[str, ReportFigure]:
    """Figures by name, in the order of `FIGURES`; only those there are numbers for."""
    drawn = ((name, title, made(report, model)) for name, (title, made) in FIGURES.items())
    return {name: ReportFigure(title, *found) for name, title, found in drawn if found}


def _composition(report: Report, model: Artifact) -> Drawn | None:
    return _before_after(_subsets(report, "composition"))


def _heldout(report: Report, model: Artifact) -> Drawn | None:
    return _before_after(_subsets(report, "heldout"))


def _retention(report: Report, model: Artifact) -> Drawn | None:
    return _before_after(_subsets(report, "retention"))


def _robust(report: Report, model: Artifact) -> Drawn | None:
    """The means under attack, each beside the same rows untouched."""
    return _before_after([row for row in _rows(report, "robust") if not row["subset"]])


def _overview(report: Report, model: Artifact) -> Drawn | None:
    rows = [row for name in ("composition", "heldout", "retention") for row in _subsets(report, name)]
    if not rows:
        return None
    cells = [
        (_short(row), _best_blind(row), row["before"]["value"], row["after"]["value"], row["difference"])
        for row in rows
    ]
    alt = "One line per set: the best text-only baseline, before, after, and the change; the numbers are in the tables"
    return charts.overview(cells), alt


def _forgetting(report: Report, model: Artifact) -> Drawn | None:
    rows = _subsets(report, "retention")
    return (charts.changes([(_short(row), row["difference"]) for row in rows]), _alt(rows)) if rows else None


def _trade(report: Report, model: Artifact) -> Drawn | None:
    trade = report["trade"]
    if not trade:
        return None
    points = "; ".join(
        f"{one['label']} {percent(one['up']['value'])} and {percent(one['across']['value'])}"
        for one in (*trade["models"], *trade["rivals"])
    )
    return charts.trade(trade), f"{trade['up']} against {trade['across']}: {points}"


def _types(report: Report, model: Artifact) -> Drawn | None:
    lost = report["ablation"] and report["ablation"]["types"]
    if not lost:
        return None
    rows = [kind for kind in NEGATIVE_TYPES if kind in lost]
    columns = list(lost[rows[0]])
    svg = charts.heat([[lost[kind][name] for name in columns] for kind in rows], rows, columns)
    return svg, "Points that a subset loses when the model trains without a negative type"


def _acceptance(report: Report, model: Artifact) -> Drawn | None:
    types = report["generation"]["types"]
    if not types:
        return None
    alt = "; ".join(f"{row['type']} {percent(row['accepted'])} accepted" for row in types)
    return charts.acceptance([(row["type"], row["counts"]) for row in types]), alt


def _training(report: Report, model: Artifact) -> Drawn | None:
    terms = report["training"]["terms"]
    if not terms:
        return None
    steps = tables.read(model.path / "steps").sort_by("step")
    curves = [(name, steps[name].to_pylist()) for name in (*(row["term"] for row in terms), "logit_scale", "lr")]
    alt = "; ".join(f"{row['term']} {row['first']:.3g} to {row['last']:.3g}" for row in terms)
    return charts.training(steps["step"].to_pylist(), curves), alt


FIGURES: dict[str, tuple[str, Callable[[Report, Artifact], Drawn | None]]] = {
    "composition": ("Composition, by subset", _composition),
    "heldout": ("Held-out negatives, by type", _heldout),
    "retention": ("Retention, by set", _retention),
    "robust": ("Adversarial robustness: attacked and clean", _robust),
    "overview": ("All sets at a glance", _overview),
    "forgetting": ("Forgetting, by set", _forgetting),
    "trade": ("Composition against retention", _trade),
    "types": ("Effect of each negative type, by subset", _types),
    "acceptance": ("Accepted negatives, by type", _acceptance),
    "training": ("Training curves", _training),
}
"""Name -> title, and what draws it from the report's facts and the model; None = no numbers for it."""


def _rows(report: Report, wanted: Family) -> list[ScoreRow]:
    return [row for one in report["benchmarks"] if about(one["key"]).family == wanted for row in one["rows"]]


def _subsets(report: Report, wanted: Family) -> list[ScoreRow]:
    """The one score of each subset of a family's benchmarks."""
    return [row for row in _rows(report, wanted) if row["subset"]]


def _before_after(rows: list[ScoreRow]) -> Drawn | None:
    if not rows:
        return None
    return charts.before_after([(_short(row), row["before"], row["after"], row["chance"]) for row in rows]), _alt(rows)


def _best_blind(row: ScoreRow) -> float | None:
    """The best of those that saw no image."""
    return max((one["value"] for one in row.get("blind", {}).values()), default=None)


def _alt(rows: list[ScoreRow]) -> str:
    return "; ".join(
        f"{row['name']} {percent(row['before']['value'])} before, {percent(row['after']['value'])} after"
        for row in rows
    )


def _short(row: ScoreRow) -> str:
    return str(row["name"]).removesuffix(".top1").removesuffix(".macro")
