"""Charts: the same bytes for the same numbers, and the numbers written as everywhere else."""

import re
from xml.etree import ElementTree

import pytest

from stages.report import charts


def texts(svg: str) -> list[str]:
    """What a chart says: matplotlib writes each text as a comment beside its glyphs."""
    return re.findall(r"<!-- (.*?) -->", svg)


def estimate(value: float | None, half: float = 0.01) -> dict[str, float | None]:
    if value is None:
        return {"value": None, "low": None, "high": None}
    return {"value": value, "low": value - half, "high": value + half}


def test_a_heat_map_writes_whole_points_with_signs() -> None:
    svg = charts.heat([[0.031, -0.024], [-0.004, None]], ["swap_nouns", "replace_nouns"], ["a", "b"])
    assert [text for text in texts(svg) if re.fullmatch(r"[-+−]?[\d.]+", text)] == ["+3", "−2", "0"]
    assert "swap_nouns" in texts(svg)


def test_the_overview_writes_shares_and_signed_changes() -> None:
    rows = [("one", 0.5, 0.6, 0.625, estimate(0.025)), ("two", None, 0.5, 0.4996, estimate(-0.0004))]
    said = texts(charts.overview(rows))
    assert said.count("50.0") == 3 and "62.5" in said and "+2.5" in said and "0.0" in said
    assert not {"-0.0", "−0.0", "+0.0"} & set(said)


def test_what_was_not_scored_leaves_a_gap_and_no_fault() -> None:
    nothing = estimate(None)
    for svg in (
        charts.before_after([("a", nothing, nothing, None), ("b", estimate(0.5), estimate(0.6), 0.5)]),
        charts.changes([("a", nothing), ("b", estimate(-0.1))]),
        charts.overview([("a", None, None, None, nothing)]),
        charts.heat([[None]], ["row"], ["column"]),
    ):
        ElementTree.fromstring(svg)
        assert {"a", "row"} & set(texts(svg))


@pytest.mark.parametrize("name", ["$^{$", "<b>&", "日本"])
def test_names_from_data_are_text(name: str) -> None:
    svg = charts.acceptance([(name, {"accepted": 3, "rejected": 1})])
    ElementTree.fromstring(svg)
    assert svg == charts.acceptance([(name, {"accepted": 3, "rejected": 1})])
