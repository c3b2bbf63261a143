"""The figures of the report: which there are, of which facts, and what each says without being seen.

Adding one is a function and a line of `FIGURES`; how it is drawn is charts.py.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pipeline import tables
from pipeline.artifact import Artifact
from pipeline.negative_types import ALL_TYPES
from stages.pages import data_uri, percent
from stages.report import charts

Report = Mapping[str, Any]
"""What facts.gather returns."""


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
    rows = [kind for kind in ALL_TYPES if kind in lost]
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
    "trade": ("Composition against what the model knows", _trade),
    "types": ("Effect of each negative type, by subset", _types),
    "acceptance": ("Accepted negatives, by type", _acceptance),
    "training": ("Training curves", _training),
}
"""Name -> title, and what draws it from the report's facts and the model; None = no numbers for it."""
