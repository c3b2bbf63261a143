"""Many trained models on one dataset: one table of means and standard deviations over seeds, and two figures.

A score of a row is the mean over its seeds; sd is the sample standard deviation, absent for a single seed. The paired
differences and the search come with the facts (flows/comparing.py).
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pipeline import tables
from pipeline.negative_types import ALL_TYPES
from stages.benchmarks.loaders import about
from stages.pages import markdown as escaped
from stages.pages import percent, signed
from stages.report import charts
from stages.verdicts import answer

Comparison = dict[str, Any]
"""What `compare` returns, plain JSON data."""

ComparedRow = Mapping[str, Any]
"""One row of it: one setting with all its seeds."""

SHOWN = (
    "sugarcrepe.macro7", "sugarcrepe.mean_files", "valse.mean_files", "aro.mean_vg", "zeroshot.mean",
    "composition", "heldout.mean", "retrieval.mean_r1",
)  # fmt: skip
ASKED = ("aro.vg_relation", "aro.vg_attribution", "valse.counting", "aro.coco_order", "aro.flickr30k_order")
"""What begins so stands in the table by what is asked: relations, attributes, counting, word order."""

GROUPS = {
    "rivals": "Baselines",
    "degla": "DeGLA",
    "ablations": "DeGLA without a part, or with another K",
    "types": "DeGLA without one negative type",
}


def compare(runs: Mapping[str, Any]) -> Comparison:
    """Means, deviations, the undominated rows and what each negative type gives, from the scores of every run.

    Args:
        runs: description, base, settings, seeds, search, and rows, each {name, title, group, without, like, search,
            difference (ours minus it), runs: [{seed, scores, before, blind, shows, subsets}]}; see flows/comparing.py.

    Returns:
        runs with `mean` and `sd` by score in every row that was run, `pareto` (names of rows that no other beats in
        both questions), `before`, `blind` (the best text-only baseline of a run that was scored with them), and
        `types` (type -> subset -> points that training without the type lacks).
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
        "blind": next((run["blind"] for row in done for run in row["runs"] if run["blind"]), {}),
        "up": up,
        "across": across,
        "pareto": [row["name"] for row in rows if up and across and not _beaten(row, rows, up, across)],
        "types": _types(rows, done[0]["runs"][0]["subsets"] if done else []),
    }


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
    before = comparison["before"]
    beside = f"{figures}/" if figures else ""
    asked = [name for name in before if name.startswith(ASKED) and not name.endswith(".micro")]
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
        *_scores(comparison, [name for name in SHOWN if name in before]),
    ]
    if comparison["missing"]:
        lines += ["", f"Not yet trained with every seed: {', '.join(comparison['missing'])}."]
    if comparison["up"] and comparison["across"]:
        lines += ["", f"![composition against retention]({beside}pareto.svg)"]
    if asked:
        lines += ["", "## Relations, attributes, counting, word order", "", *_scores(comparison, asked)]
    lines += _against_the_start(comparison)
    lines += _differences(comparison, [name for name in (*SHOWN, *asked) if name in before])
    lines += _search(comparison)
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


def _scores(comparison: Comparison, shown: Sequence[str]) -> list[str]:
    """A table of scores: blind baselines, the start, then every row."""
    before, blind = comparison["before"], comparison["blind"]
    lines = [f"| row | {' | '.join(shown)} |", f"|---|{'---:|' * len(shown)}"]
    if blind:
        levels = (percent(blind[name]) if name in blind else "" for name in shown)
        lines.append(f"| best text-only baseline (blind) | {' | '.join(levels)} |")
    lines.append(f"| before training | {' | '.join(percent(before[name]) for name in shown)} |")
    for group, title in GROUPS.items():
        members = [row for row in comparison["rows"] if row["group"] == group]
        if members:
            lines.append(f"| *{title}* |{' |' * len(shown)}")
        for row in members:
            title = escaped(row["title"])
            label = f"**{title}**" if row["name"] in comparison["pareto"] else title
            cells = (percent(row["mean"][name]) + _deviation(row["sd"][name]) for name in shown)
            lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def _against_the_start(comparison: Comparison) -> list[str]:
    """In how many seeds each row is better than the start, by the rule of the report."""
    names = [name for name in (comparison["up"], comparison["across"]) if name]
    rows = [row for row in comparison["rows"] if names and all("shows" in run for run in row["runs"])]
    if not rows:
        return []
    lines = [
        "",
        "## Against the start",
        "",
        "Number of seeds by what they show: *up* only where interval and p of the change exclude no change and the "
        "score lies above what judges without pictures reach on the same rows; *blind* where it rose, but not above "
        "those; *unjudged* where none was scored.",
        "",
        f"| row | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for row in rows:
        counts = (Counter(run["shows"][name] for run in row["runs"]) for name in names)
        cells = (", ".join(f"{word} {count}" for word, count in sorted(one.items())) for one in counts)
        lines.append(f"| {escaped(row['title'])} | {' | '.join(cells)} |")
    return lines


def _differences(comparison: Comparison, shown: Sequence[str]) -> list[str]:
    """DeGLA minus every other row, with intervals over seeds and test rows."""
    rows = [row for row in comparison["rows"] if row.get("difference")]
    if not rows:
        return []
    names = [name for name in shown if any(name in row["difference"] for row in rows)]
    lines = [
        "",
        "## DeGLA minus each other row",
        "",
        "Points, with 95 % intervals: seed by seed and test row by test row, for other seeds and other rows alike"
        + ("." if len(comparison["seeds"]) > 1 else "; of one seed, for other rows alone."),
        "",
        f"| row | {' | '.join(names)} |",
        f"|---|{'---:|' * len(names)}",
    ]
    for row in rows:
        cells = (_interval(row["difference"].get(name)) for name in names)
        lines.append(f"| {escaped(row['title'])} | {' | '.join(cells)} |")
    return lines


def _interval(gap: Mapping[str, float] | None) -> str:
    return f"{signed(gap['value'])} ({signed(gap['low'])} to {signed(gap['high'])})" if gap else ""


def _search(comparison: Comparison) -> list[str]:
    """What each row tried on the val split, what it chose and what that cost."""
    rows = [row for row in comparison["rows"] if row.get("search")]
    if not rows:
        return []
    plan = comparison["search"]
    lines = [
        "",
        "## Search",
        "",
        f"Each of these rows tried {plan['trials']} settings of its grid, drawn by seed {plan['seed']} and trained "
        f"with seed {plan['train_seed']}, and kept the one with the best score on the val split: the mean of held-out "
        "negatives that lose to their caption and of retrieval in the batch. No benchmark was looked at. All trials "
        "are in `comparison.json`.",
        "",
        "| row | chosen | score | negatives | retrieval | worst score | minutes |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        found = row["search"]
        best = next(one for one in found["trials"] if one["settings"] == found["chosen"])
        worst = min(one["score"] for one in found["trials"])
        chosen = ", ".join(_code(f"{name.removeprefix('train.')}={value:g}") for name, value in found["chosen"].items())
        shares = (percent(one) for one in (best["score"], best.get("own"), best.get("retrieval"), worst))
        lines.append(f"| {escaped(row['title'])} | {chosen} | {' | '.join(shares)} | {found['seconds'] / 60:.1f} |")
    return lines


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
    types = [kind for kind in ALL_TYPES if kind in lost]
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
    names = [name for name in subsets if about(name).family != "retention"]
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
