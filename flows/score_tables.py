"""Scores as tables of the terminal and of Prefect's UI, and in the sentences that they allow (stages/verdicts.py)."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from flows.terminal import change_with_interval, with_interval
from pipeline.errors import printable
from stages.pages import percent
from stages.verdicts import Facts, Word, best_blind, p_value, sentences, side_by_side, verdict

COLOURS: dict[Word, str] = {"up": "green", "down": "red"}

Meta = Mapping[str, Any]
"""What the manifest of a `scores` artifact holds."""


def says(meta: Meta) -> list[str]:
    """What a run's scores show of composition and of retention, a line each."""
    return sentences(meta["aggregates"], random_start=meta.get("random_start", False))


def of_run(meta: Meta) -> Table:
    """The mean of each of the paper's benchmarks, the means over them, each subset; as per cent with intervals."""
    title = "before and after fine-tuning: per cent right, 95 % intervals; blind: without pictures"
    table = Table("score", "blind", "before", "after", "change", "n", title=title, title_justify="left")
    for column in table.columns:
        column.no_wrap = True
    for name, one in told(meta["aggregates"]):
        table.add_row(
            Text(printable(name), "" if one["subset"] else "bold"),
            _blind(one),
            *(with_interval(one[side]) for side in ("before", "after")),
            Text(change_with_interval(one["difference"]), COLOURS.get(_word(name, one, meta), "")),
            _rows_scored(one),
        )
    return table


def rows(meta: Meta) -> list[dict[str, Any]]:
    """The same for Prefect's UI."""
    return [
        {
            "score": name,
            "blind": _blind(one),
            **{side: with_interval(one[side]) for side in ("before", "after")},
            "change": change_with_interval(one["difference"]),
            "p": p_value(one["difference"]),
            "shows": _word(name, one, meta),
            "n": one["n"],
            "of": one["of"],
        }
        for name, one in told(meta["aggregates"])
    ]


def of_models(aggregates: Mapping[str, Facts], labels: Mapping[str, str], *, random_start: bool) -> Table:
    """Every aggregate of one model, or of two (before, after) and their difference.

    Args:
        aggregates: name -> aggregate.
        labels: model, as the aggregates name it -> what a reader sees.
        random_start: whether the first of two has random weights.
    """
    compared = len(labels) == 2
    title = "per cent right, 95 % intervals; blind: without pictures" + ("; H: Holm-adjusted" if compared else "")
    table = Table(title=title, title_justify="left")
    table.add_column("score", no_wrap=True)
    for heading in ("blind", *labels.values(), *(("change", "p", "detects") if compared else ()), "n"):
        table.add_column(heading)
    for name, one in aggregates.items():
        cells: list[str | Text] = [_blind(one), *(with_interval(one[model]) for model in labels)]
        if compared:
            change, p = one["difference"], p_value(one["difference"])
            colour = COLOURS.get(verdict(name, one, random_start=random_start).word, "")
            found = "" if p is None else f"{p:.3f}" + (" H" if "p_holm" in change else "")
            cells += [Text(change_with_interval(change), colour), found, percent(change["detectable"])]
        table.add_row(name, *cells, _rows_scored(one))
    return table


def told(every: Mapping[str, Facts]) -> Iterator[tuple[str, Facts]]:
    """The paper's benchmarks, the other means that answer a question, then each subset's own score."""
    first = [*side_by_side(every).values(), *(name for name, one in every.items() if one["headline"])]
    rest = (name for name, one in every.items() if one["subset"])
    yield from ((name, every[name]) for name in dict.fromkeys((*first, *rest)))


def _word(name: str, one: Facts, meta: Meta) -> Word:
    return verdict(name, one, random_start=meta.get("random_start", False)).word


def _blind(one: Facts) -> str:
    best = best_blind(one)
    return percent(best["value"]) if best else ""


def _rows_scored(one: Facts) -> str:
    return f"{one['n']:,}" if one["n"] == one["of"] else f"{one['n']:,} of {one['of']:,}"
