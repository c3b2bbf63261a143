"""Charts: small SVG files that read on a phone and in print, the same bytes for the same numbers.

Colours are Okabe and Ito's, told apart by every common kind of colour blindness, and never the only sign: before is a
hollow ring, after a filled dot. Every function takes plain numbers and returns the SVG as text.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from stages.pages import signed

BEFORE, AFTER, WORSE, GOOD, QUIET = "#6b7280", "#0072b2", "#d55e00", "#009e73", "#d1d5db"
WIDTH = 5.2

STYLE: dict[str, Any] = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9ca3af",
    "axes.labelcolor": "#374151",
    "xtick.color": "#374151",
    "ytick.color": "#374151",
    "svg.hashsalt": "degla",
    "svg.fonttype": "path",
    "text.parse_math": False,  # names come from data; a dollar sign in one is a dollar sign
    "figure.constrained_layout.use": True,
}

Estimate = Mapping[str, Any]
"""value, low, high as shares in 0..1, each None when nothing was scored."""


def acceptance(rows: Sequence[tuple[str, Mapping[str, int]]]) -> str:
    """One bar per negative type, split into accepted, rejected and not applicable, % of the captions.

    rows: type, counts by status.
    """
    parts = (("accepted", AFTER, ""), ("rejected", WORSE, "///"), ("not_applicable", QUIET, "..."))
    with matplotlib.rc_context(STYLE):
        figure, axes = _lines(len(rows))
        for y, (_, counts) in enumerate(rows):
            left, total = 0.0, sum(counts.values()) or 1
            for status, colour, hatch in parts:
                share = 100 * counts.get(status, 0) / total
                axes.barh(y, share, left=left, color=colour, hatch=hatch, edgecolor="white", height=0.62, lw=0.4)
                if share > 9:
                    dark = "#111827" if status == "not_applicable" else "white"
                    box = {"facecolor": colour, "edgecolor": "none", "pad": 1.2}
                    axes.text(left + share / 2, y, f"{share:.0f}", ha="center", va="center", color=dark, bbox=box)
                left += share
        _label(axes, [row[0] for row in rows])
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of captions")
        handles = [
            matplotlib.patches.Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=status.replace("_", " "))
            for status, colour, hatch in parts
        ]
        _legend(figure, handles)
        return _svg(figure)


def training(step: Sequence[float], curves: Sequence[tuple[str, Sequence[float]]]) -> str:
    """One small panel per curve over the steps: each value faint, their running mean on top."""
    import numpy as np

    with matplotlib.rc_context(STYLE):
        columns = 2 if len(curves) > 1 else 1
        lines = -(-len(curves) // columns)
        figure = Figure(figsize=(WIDTH, 1.35 * lines + 0.3))
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True)
        for axes, (name, values) in zip(grid.flat, curves, strict=False):
            found = np.asarray(values, dtype=float)
            width = max(1, len(found) // 40)
            padded = np.pad(found, (width // 2, width - 1 - width // 2), mode="edge")
            axes.plot(step, found, color=QUIET, lw=0.8, rasterized=len(found) > 5000)
            axes.plot(step, np.convolve(padded, np.ones(width) / width, mode="valid"), color=AFTER, lw=1.4)
            axes.set_title(name, fontsize=10, loc="left", color="#374151")
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        for axes in list(grid.flat)[len(curves) :]:
            axes.set_visible(False)
        for axes in grid[-1]:
            axes.set_xlabel("step")
        return _svg(figure)


def trade(facts: Mapping[str, Any]) -> str:
    """Retention across, composition up; up and to the right is better.

    Both models with their intervals, the line of mixtures between them, baselines numbered in the order given with one
    standard deviation each way, and at the right edge what papers print of composition alone.

    facts: up, across (names), models, curve, rivals, levels; see stages/report/facts.py.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.2 if facts["rivals"] or facts["levels"] else 3.4))
        axes = figure.subplots()
        shown = [
            one for one in facts["models"] if one["up"]["value"] is not None and one["across"]["value"] is not None
        ]
        line = [one for one in facts["curve"] if one["up"] is not None and one["across"] is not None] or [
            {"across": one["across"]["value"], "up": one["up"]["value"]} for one in shown
        ]
        axes.plot(
            [100 * one["across"] for one in line], [100 * one["up"] for one in line], "--", color="#9ca3af", zorder=1
        )
        for one in line[1:-1]:
            h, v = 100 * one["across"], 100 * one["up"]
            axes.plot(h, v, "D", color=AFTER, mfc="white", ms=4.5)
            axes.annotate(f"α {one['alpha']:g}", (h, v), xytext=(6, 3), textcoords="offset points", color=AFTER, size=8)
        for number, one in enumerate(facts["rivals"], start=1):
            x, y, colour = one["across"], one["up"], GROUPS[one["group"]]
            h, v = 100 * x["value"], 100 * y["value"]
            axes.errorbar(h, v, 100 * (y["sd"] or 0), 100 * (x["sd"] or 0), color=colour, lw=0.8, alpha=0.4, fmt="none")
            axes.plot(h, v, "s", color=colour, mfc="white", ms=5)
            axes.annotate(str(number), (h, v), xytext=(4, 3), textcoords="offset points", color=colour, size=8)
        for one in shown:
            x, y = one["across"], one["up"]
            colour, face = (AFTER, AFTER) if one["label"] == "after" else (BEFORE, "white")
            h, v = 100 * x["value"], 100 * y["value"]
            axes.plot([100 * x["low"], 100 * x["high"]], [v, v], color=colour, lw=1.4)
            axes.plot([h, h], [100 * y["low"], 100 * y["high"]], color=colour, lw=1.4)
            axes.plot(h, v, "o", color=colour, mfc=face, ms=7)
            lift = -14 if one["label"] == "before" else 7
            axes.annotate(
                one["label"], (h, v), (-7, lift), textcoords="offset points", ha="right", color=colour, weight="bold"
            )
        axes.margins(0.25)
        for one in facts["levels"]:
            edge = axes.get_yaxis_transform()
            axes.plot([0.97, 1], [100 * one["value"]] * 2, color=WORSE, transform=edge, lw=1.4)
            axes.text(
                0.96, 100 * one["value"], one["label"], transform=edge, ha="right", va="center", size=8, color=WORSE
            )
        axes.set_xlabel(f"{facts['across']}, %")
        axes.set_ylabel(f"{facts['up']}, %")
        axes.grid(color="#f3f4f6")
        return _svg(figure)


GROUPS = {"before": BEFORE, "rivals": WORSE, "degla": AFTER, "ablations": GOOD, "types": "#cc79a7"}
"""Colour of each group of a comparison."""

Point = tuple[str, float, float, float, float, str, bool]
"""label, share across, share up, sd across, sd up, group, undominated."""


def pareto(points: Sequence[Point], across: str, up: str) -> str:
    """Many models: retention across, composition up, one sd each way; numbered, because labels would overlap.

    Filled points are those that no other beats in both.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.7 * WIDTH, max(3.6, 0.2 * len(points) + 0.6)))
        axes, key = figure.subplots(1, 2, width_ratios=(3, 2))
        for number, (label, x, y, x_sd, y_sd, group, best) in enumerate(points):
            colour, h, v = GROUPS[group], 100 * x, 100 * y
            axes.errorbar(h, v, 100 * y_sd, 100 * x_sd, color=colour, lw=0.8, alpha=0.45, fmt="none")
            axes.plot(h, v, "o", color=colour, mfc=colour if best else "white", ms=6)
            axes.annotate(str(number), (h, v), xytext=(4, 3), textcoords="offset points", color=colour, size=8)
            line = 1 - (number + 0.5) / len(points)
            weight = "bold" if best else "normal"
            key.text(0, line, f"{number}  {label}", color=colour, size=8, va="center", weight=weight)
        key.axis("off")
        axes.margins(0.1)
        axes.set_xlabel(f"{across}, %")
        axes.set_ylabel(f"{up}, %")
        axes.grid(color="#f3f4f6")
        return _svg(figure)


def heat(values: Sequence[Sequence[float | None]], rows: Sequence[str], columns: Sequence[str]) -> str:
    """A table of differences in points, purple above 0 and orange below, each with its number.

    values: shares, by row and column; None = not scored.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(0.42 * len(columns) + 2.2, 0.42 * len(rows) + 2.0))
        axes = figure.subplots()
        points = [[math.nan if value is None else 100 * value for value in row] for row in values]
        most = max((abs(value) for row in points for value in row if not math.isnan(value)), default=1) or 1
        axes.imshow(points, cmap="PuOr", norm=Normalize(-most, most), aspect="auto")
        for y, row in enumerate(values):
            for x, value in enumerate(row):
                if value is not None:
                    colour = "white" if abs(100 * value) > 0.7 * most else "#111827"
                    axes.text(x, y, signed(value, 0), ha="center", va="center", size=8, color=colour)
        axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", size=8)
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0)
        return _svg(figure)


def _lines(count: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, 0.34 * count + 0.85))
    axes = figure.subplots()
    axes.set_ylim(count - 0.4, -0.6)
    axes.grid(axis="x", color="#f3f4f6")
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: FuncFormatter.fix_minus(f"{value:g}")))
    return figure, axes


def _label(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _legend(figure: Figure, handles: Sequence[Any]) -> None:
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, handletextpad=0.4)


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()
