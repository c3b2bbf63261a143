"""Charts: the same bytes for the same numbers, and the numbers written as everywhere else."""

import re
from xml.etree import ElementTree

import pytest

from stages.report import charts


def texts(svg: str) -> list[str]:
    """What a chart says: matplotlib writes each text as a comment beside its glyphs."""
    return re.findall(r"<!-- (.*?) -->", svg)


def test_a_heat_map_writes_whole_points_with_signs() -> None:
    svg = charts.heat([[0.031, -0.024], [-0.004, None]], ["swap_nouns", "replace_nouns"], ["a", "b"])
    assert [text for text in texts(svg) if re.fullmatch(r"[-+−]?[\d.]+", text)] == ["+3", "−2", "0"]
    assert "swap_nouns" in texts(svg)


def test_what_was_not_scored_leaves_a_gap_and_no_fault() -> None:
    svg = charts.heat([[None]], ["row"], ["column"])
    ElementTree.fromstring(svg)
    assert {"row", "column"} <= set(texts(svg))


@pytest.mark.parametrize("name", ["$^{$", "<b>&", "日本"])
def test_names_from_data_are_text(name: str) -> None:
    svg = charts.acceptance([(name, {"accepted": 3, "rejected": 1})])
    ElementTree.fromstring(svg)
    assert svg == charts.acceptance([(name, {"accepted": 3, "rejected": 1})])
