"""Many trained models on one dataset: one table of means and standard deviations over seeds, and two figures.

A score of a row is the mean over its seeds; sd is the sample standard deviation, absent for a single seed.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from pipeline.schema import NEGATIVE_TYPES
from stages.pages import markdown as escaped
from stages.report import charts as figures

Facts = dict[str, Any]

COMPOSITION = ("composition", "heldout.mean")
RETENTION = ("zeroshot.mean", "retrieval.mean_r1")
SHOWN = ("composition", "sugarcrepe.macro7", "valse.mean_files", "heldout.mean", "zeroshot.mean", "retrieval.mean_r1")
GROUPS = {
    "rivals": "Rivals",
    "degla": "DeGLA",
    "ablations": "DeGLA without a part, or with another K",
    "types": "DeGLA without one negative type",
}


def compare(facts: Facts) -> Facts:
    """Means, deviations, the undominated rows and what each negative type gives, from the scores of every run.

    Args:
        facts: rows, each {name, title, group, without, runs: [{seed, scores, before, subsets}]}; see flows/plan.py.

    Returns:
        facts with `mean` and `sd` by score in every row that has runs, `pareto` (names of rows that no other beats in
        both questions), `before`, and `types` (type -> subset -> points that training without the type lacks).
    """
    done = [row for row in facts["rows"] if row["runs"]]
    names = list(done[0]["runs"][0]["scores"]) if done else []
    rows = []
    for row in done:
        columns = {name: _scored([run["scores"][name] for run in row["runs"]]) for name in names}
        rows.append(
            row
            | {"mean": {name: mean(values) if values else None for name, values in columns.items()}}
            | {"sd": {name: stdev(values) if len(values) > 1 else None for name, values in columns.items()}}
        )
    up, across = _present(names, COMPOSITION), _present(names, RETENTION)
    whole = next((row for row in rows if row["name"] == "degla"), None)
    left_out = [row for row in rows if row["without"]]
    subsets = done[0]["runs"][0]["subsets"] if done else []
    return facts | {
        "rows": rows,
        "missing": [row["name"] for row in facts["rows"] if len(row["runs"]) < len(facts["seeds"])],
        "before": done[0]["runs"][0]["before"] if done else {},
        "up": up,
        "across": across,
        "pareto": [row["name"] for row in rows if up and across and not _beaten(row, rows, up, across)],
        "types": {
            row["without"]: {
                name: _less(whole["mean"][name], row["mean"][name])
                for name in subsets
                if not name.startswith(("zeroshot", "retrieval"))
            }
            for row in left_out
            if whole
        },
    }


def versus(comparison: Facts, one: str, other: str) -> Facts | None:
    """How row `one` does against row `other`, seed by seed: mean and sd of the differences in both questions."""
    found = {row["name"]: {run["seed"]: run["scores"] for run in row["runs"]} for row in comparison["rows"]}
    seeds = sorted(found.get(one, {}).keys() & found.get(other, {}).keys())
    if not seeds:
        return None
    said: Facts = {"seeds": seeds}
    for name in (comparison["up"], comparison["across"]):
        gaps = [found[one][seed][name] - found[other][seed][name] for seed in seeds]
        said[name] = {"mean": mean(gaps), "sd": stdev(gaps) if len(gaps) > 1 else None}
    return said


def markdown(comparison: Facts, command: str, pictures: str = "") -> str:
    """The comparison as a page.

    Args:
        comparison: what `compare` returns.
        command: the command that makes it again.
        pictures: folder of the figures, as seen from the page; empty = beside it.
    """
    rows, before = comparison["rows"], comparison["before"]
    shown = [name for name in SHOWN if name in before]
    beside = f"{pictures}/" if pictures else ""
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
        f"| before training | {' | '.join(_percent(before[name]) for name in shown)} |",
    ]
    for group, title in GROUPS.items():
        members = [row for row in rows if row["group"] == group]
        if members:
            lines.append(f"| *{title}* |{' |' * len(shown)}")
        for row in members:
            title = escaped(row["title"])
            label = f"**{title}**" if row["name"] in comparison["pareto"] else title
            cells = (_with_deviation(row["mean"][name], row["sd"][name]) for name in shown)
            lines.append(f"| {label} | {' | '.join(cells)} |")
    if comparison["missing"]:
        lines += ["", f"Not yet trained with every seed: {', '.join(comparison['missing'])}."]
    lines += ["", f"![composition against retention]({beside}pareto.svg)", ""]
    for other in ("negclip", "clip_ft", "no_distill"):
        gaps = versus(comparison, "degla", other)
        if gaps:
            title = escaped(next(row["title"] for row in rows if row["name"] == other))
            up, across = (_signed(gaps[comparison[key]]) for key in ("up", "across"))
            lines.append(f"- DeGLA minus {title}, seed by seed: composition {up}, retention {across} points.")
    if comparison["types"]:
        lines += [
            "",
            "## What each negative type gives",
            "",
            "Points lost on a subset when DeGLA trains without the type (mean over seeds).",
            "",
            f"![negative type by benchmark subset]({beside}types.svg)",
        ]
    return "\n".join(lines) + "\n"


def draw(comparison: Facts) -> dict[str, str]:
    """The figures, SVG text by name: pareto, and types where types were left out."""
    up, across = comparison["up"], comparison["across"]
    found = {}
    if up and across:
        points = [("before", comparison["before"][across], comparison["before"][up], 0.0, 0.0, "before", False)]
        points += [
            (
                row["title"], row["mean"][across], row["mean"][up], row["sd"][across] or 0.0, row["sd"][up] or 0.0,
                row["group"], row["name"] in comparison["pareto"],
            )
            for row in comparison["rows"]
        ]  # fmt: skip
        found["pareto"] = figures.pareto(points, across, up)
    types = [kind for kind in NEGATIVE_TYPES if kind in comparison["types"]]
    if types:
        subsets = list(comparison["types"][types[0]])
        found["types"] = figures.heat(
            [[comparison["types"][kind][name] for name in subsets] for kind in types], types, subsets
        )
    return found


def _beaten(row: Facts, rows: Sequence[Facts], up: str, across: str) -> bool:
    mine = (row["mean"][up], row["mean"][across])
    return any(
        theirs[0] >= mine[0] and theirs[1] >= mine[1] and theirs != mine
        for theirs in ((other["mean"][up], other["mean"][across]) for other in rows)
    )


def _present(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in names), None)


def _scored(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and not math.isnan(value)]


def _less(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _code(text: str) -> str:
    return f"`{' '.join(text.replace('`', ' ').split())}`"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _with_deviation(value: float | None, deviation: float | None) -> str:
    return _percent(value) + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def _signed(gap: Mapping[str, float | None]) -> str:
    value, deviation = gap["mean"], gap["sd"]
    return f"{100 * (value or 0):+.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")
