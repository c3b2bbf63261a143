"""Many trained models on one dataset: one table of means and standard deviations over seeds, and two figures.

A score of a row is the mean over its seeds; sd is the sample standard deviation, absent for a single seed.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pipeline import tables
from pipeline.negative_types import NEGATIVE_TYPES
from stages.pages import markdown as escaped
from stages.pages import percent, signed
from stages.report import charts
from stages.report.families import answer, family

Comparison = dict[str, Any]
"""What `compare` returns, plain JSON data."""

ComparedRow = Mapping[str, Any]
"""One row of it: one setting with all its seeds."""

SHOWN = ("composition", "sugarcrepe.macro7", "valse.mean_files", "heldout.mean", "zeroshot.mean", "retrieval.mean_r1")
GROUPS = {
    "rivals": "Baselines",
    "degla": "DeGLA",
    "ablations": "DeGLA without a part, or with another K",
    "types": "DeGLA without one negative type",
}


def compare(runs: Mapping[str, Any]) -> Comparison:
    """Means, deviations, the undominated rows and what each negative type gives, from the scores of every run.

    Args:
        runs: description, base, settings, seeds, and rows, each {name, title, group, without, runs: [{seed, scores,
            before, subsets}]}; see flows/plan.py.

    Returns:
        runs with `mean` and `sd` by score in every row that was run, `pareto` (names of rows that no other beats in
        both questions), `before`, and `types` (type -> subset -> points that training without the type lacks).
    """
    done = [row for row in runs["rows"] if row["runs"]]
    names = list(done[0]["runs"][0]["scores"]) if done else []
    rows = [_with_means(row, names) for row in done]
    up, across = answer("composition", names), answer("retention", names)
    return {
        **runs,
        "rows": rows,
        "missing": [row["name"] for row in runs["rows"] if len(row["runs"]) < len(runs["seeds"])],
        "before": done[0]["runs"][0]["before"] if done else {},
        "up": up,
        "across": across,
        "pareto": [row["name"] for row in rows if up and across and not _beaten(row, rows, up, across)],
        "types": _types(rows, done[0]["runs"][0]["subsets"] if done else []),
    }


def versus(comparison: Comparison, one: str, other: str) -> dict[str, Any] | None:
    """How row `one` does against row `other`, seed by seed: mean and sd of the differences in both questions.

    None when no seed is common to both, or nothing measures one of the questions.
    """
    questions = (comparison["up"], comparison["across"])
    scores = {row["name"]: {run["seed"]: run["scores"] for run in row["runs"]} for row in comparison["rows"]}
    seeds = sorted(scores.get(one, {}).keys() & scores.get(other, {}).keys())
    if not seeds or None in questions:
        return None
    gaps: dict[str, Any] = {"seeds": seeds}
    for name in questions:
        values = [scores[one][seed][name] - scores[other][seed][name] for seed in seeds]
        gaps[name] = {"mean": mean(values), "sd": stdev(values) if len(values) > 1 else None}
    return gaps


def write(folder: Path, comparison: Comparison, command: str) -> None:
    """Write comparison.md, comparison.json and the figures into a folder, made when it is not there.

    Args:
        folder: of the comparison.
        comparison: what `compare` returns.
        command: the command that makes it again.
    """
    for name, svg in draw(comparison).items():
        tables.write_text(folder / f"{name}.svg", svg)
    tables.write_text(folder / "comparison.json", json.dumps(comparison, indent=1) + "\n")
    tables.write_text(folder / "comparison.md", markdown(comparison, command))


def markdown(comparison: Comparison, command: str, figures: str = "") -> str:
    """The comparison as a page.

    Args:
        comparison: what `compare` returns.
        command: the command that makes it again.
        figures: folder of the figures, as seen from the page; empty = beside it.
    """
    rows, before = comparison["rows"], comparison["before"]
    shown = [name for name in SHOWN if name in before]
    beside = f"{figures}/" if figures else ""
    lines = [
        "# Ablation",
        "",
        escaped(comparison["description"]),
        "",
        "```sh",
        command,
        "```",
        "",
        f"Per cent right, mean ± standard deviation over {len(comparison['seeds'])} seeds "
        f"({', '.join(map(str, comparison['seeds']))}); base recipe {_code(comparison['base'])}"
        + (f" with {', '.join(map(_code, comparison['settings']))}" if comparison["settings"] else "")
        + ". **Bold**: no other row is better both in composition and in retention. Scores are named and defined as in "
        "the report; the rows' settings stand in `data/ablations/`.",
        "",
        f"| row | {' | '.join(shown)} |",
        f"|---|{'---:|' * len(shown)}",
        f"| before training | {' | '.join(percent(before[name]) for name in shown)} |",
    ]
    for group, title in GROUPS.items():
        members = [row for row in rows if row["group"] == group]
        if members:
            lines.append(f"| *{title}* |{' |' * len(shown)}")
        for row in members:
            title = escaped(row["title"])
            label = f"**{title}**" if row["name"] in comparison["pareto"] else title
            cells = (percent(row["mean"][name]) + _deviation(row["sd"][name]) for name in shown)
            lines.append(f"| {label} | {' | '.join(cells)} |")
    if comparison["missing"]:
        lines += ["", f"Not yet trained with every seed: {', '.join(comparison['missing'])}."]
    if comparison["up"] and comparison["across"]:
        lines += ["", f"![composition against retention]({beside}pareto.svg)", ""]
    for other in ("negclip", "clip_ft", "no_distill"):
        gaps = versus(comparison, "degla", other)
        if gaps:
            title = escaped(next(row["title"] for row in rows if row["name"] == other))
            up, across = (gaps[comparison[key]] for key in ("up", "across"))
            lines.append(
                f"- DeGLA minus {title}, seed by seed: composition {signed(up['mean'])}{_deviation(up['sd'])}, "
                f"retention {signed(across['mean'])}{_deviation(across['sd'])} points."
            )
    if comparison["types"]:
        lines += [
            "",
            "## Effect of each negative type",
            "",
            "Points lost on a subset when DeGLA trains without the type (mean over seeds).",
            "",
            f"![negative type by benchmark subset]({beside}types.svg)",
        ]
    return "\n".join(lines) + "\n"


def draw(comparison: Comparison) -> dict[str, str]:
    """The figures, SVG text by name: pareto, and types where types were left out."""
    up, across = comparison["up"], comparison["across"]
    drawn = {}
    if up and across:
        points = [("before", comparison["before"][across], comparison["before"][up], 0.0, 0.0, "before", False)]
        points += [
            (
                row["title"], row["mean"][across], row["mean"][up], row["sd"][across] or 0.0, row["sd"][up] or 0.0,
                row["group"], row["name"] in comparison["pareto"],
            )
            for row in comparison["rows"]
        ]  # fmt: skip
        drawn["pareto"] = charts.pareto(points, across, up)
    lost = comparison["types"]
    types = [kind for kind in NEGATIVE_TYPES if kind in lost]
    if types:
        subsets = list(lost[types[0]])
        drawn["types"] = charts.heat([[lost[kind][name] for name in subsets] for kind in types], types, subsets)
    return drawn


def _with_means(row: ComparedRow, names: Sequence[str]) -> dict[str, Any]:
    columns = {name: _scored([run["scores"][name] for run in row["runs"]]) for name in names}
    return {
        **row,
        "mean": {name: mean(values) if values else None for name, values in columns.items()},
        "sd": {name: stdev(values) if len(values) > 1 else None for name, values in columns.items()},
    }


def _types(rows: Sequence[ComparedRow], subsets: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """What training without a type lacks on each subset, those of retention aside."""
    whole = next((row for row in rows if row["name"] == "degla"), None)
    names = [name for name in subsets if family(name.partition(".")[0]) != "retention"]
    return {
        row["without"]: {name: _less(whole["mean"][name], row["mean"][name]) for name in names}
        for row in rows
        if row["without"] and whole
    }


def _beaten(row: ComparedRow, rows: Sequence[ComparedRow], up: str, across: str) -> bool:
    mine = (row["mean"][up], row["mean"][across])
    return any(
        theirs[0] >= mine[0] and theirs[1] >= mine[1] and theirs != mine
        for theirs in ((other["mean"][up], other["mean"][across]) for other in rows)
    )


def _scored(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and not math.isnan(value)]


def _less(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _code(text: str) -> str:
    return f"`{' '.join(text.replace('`', ' ').split())}`"


def _deviation(sd: float | None) -> str:
    return "" if sd is None else f" ± {percent(sd)}"
