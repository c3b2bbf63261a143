"""What papers print: joined to our scores where the rule and the files are the same."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.assets import DATA
from stages.benchmarks.loaders import about
from stages.benchmarks.registry import known
from stages.verdicts import PAPER_MEANS

PUBLISHED = DATA / "published_scores.json"

HEADS = {benchmark: name for benchmark, name in PAPER_MEANS.items() if about(name).question == "composition"}
"""What `composition` takes of each benchmark, by the names under which published scores are stored."""


def published(aggregates: Mapping[str, Any], models: Sequence[str], official: bool) -> dict[str, Any]:
    """What others printed under the very rule of one of our aggregates, joined only where the rows are theirs.

    Args:
        aggregates: of the scores.
        models: ours, by the name the aggregates know them by.
        official: whether the files were held against the registry.

    Returns {models, rows: [{name, ours by model, values by model, how by model}]}, published values in per cent.
    """
    rows: dict[str, dict[str, Any]] = {}
    for paper in _papers() if official else ():
        ours = aggregates.get(paper["score"])
        if ours and ours["n"] == ours["of"] and _same_rows(paper["score"]):
            row = rows.setdefault(paper["score"], {"name": paper["score"], "values": {}, "how": {}})
            row["ours"] = {model: ours[model]["value"] for model in models}
            row["values"][paper["model"]] = paper["value"]
            row["how"][paper["model"]] = f"{paper['how']}, {paper['source']}"
    theirs = list(dict.fromkeys(model for row in rows.values() for model in row["values"]))
    return {"models": theirs, "rows": list(rows.values())}


def composition_levels(ours: Mapping[str, Any], scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Composition of published models by our rule: the mean of what they print of every benchmark that enters ours.

    Args:
        ours: our answer to the question, a row of the headline.
        scores: meta of the scores artifact.

    Returns [{label, value}], values as shares; empty unless the files are official, complete and printed by papers.
    """
    measured = {name.partition(".")[0] for name in scores["protocols"]}
    asked = [name for name in HEADS if name in measured]  # in a fixed order, so that equal inputs give equal digits
    if ours["name"] != "composition" or not scores["official"] or ours["n"] < ours["of"]:
        return []
    if any(HEADS[name] not in scores["aggregates"] or not _same_rows(HEADS[name]) for name in asked):
        return []
    printed: dict[str, dict[str, float]] = {}
    for paper in _papers():
        printed.setdefault(paper["model"], {})[paper["score"]] = paper["value"] / 100
    return [
        {"label": model, "value": sum(values[HEADS[name]] for name in asked) / len(asked)}
        for model, values in printed.items()
        if all(HEADS[name] in values for name in asked)
    ]


def _same_rows(score: str) -> bool:
    """Whether official files are the rows a score was printed for: not where foils are drawn, unless by digest."""
    benchmark, _, rest = score.partition(".")
    subsets = known(benchmark).get("subsets", {})
    part = f"{rest.removeprefix('mean_')}_"  # mean_vg is over vg_relation and vg_attribution
    own = [one for name, one in subsets.items() if rest == name or rest.startswith(f"{name}.") or name.startswith(part)]
    concerned = own or subsets.values()  # any other mean is over all of them
    return all("sha256" in one for one in concerned if one.get("drawn"))


def _papers() -> list[dict[str, Any]]:
    return list(json.loads(PUBLISHED.read_text(encoding="utf-8")))
