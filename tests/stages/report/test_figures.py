"""Figures: which the report has, of which rows, and what each says in words."""

import json
from pathlib import Path
from typing import Any

import pytest

from stages.report import Config
from stages.report.facts import gather
from stages.report.figures import FIGURES, draw
from tests.stages.small_road import SmallRoad


@pytest.fixture(scope="module")
def facts(road: SmallRoad) -> dict[str, Any]:
    return gather(Config(), road.artifacts)


def test_figures_come_in_the_order_of_the_table_with_title_and_words(road: SmallRoad, facts: dict[str, Any]) -> None:
    drawn = draw(facts, road.artifacts["model"])
    assert list(drawn) == [name for name in FIGURES if name != "types"]
    for name, figure in drawn.items():
        assert figure.title == FIGURES[name][0] and len(figure.alt) > 10, name
        assert figure.svg.startswith("<?xml") and figure.uri.startswith("data:image/svg+xml;base64,"), name


def test_what_there_is_no_number_for_has_no_figure(road: SmallRoad, facts: dict[str, Any], tmp_path: Path) -> None:
    bare = facts | {
        "benchmarks": [],
        "trade": None,
        "generation": facts["generation"] | {"types": []},
        "training": {"steps": 0, "terms": []},
    }
    assert draw(bare, road.artifacts["model"]) == {}
    ablated = bare | {"ablation": {"types": {"swap_nouns": {"valse.plurals": 0.01}}, "seeds": 3}}
    assert list(draw(ablated, road.artifacts["model"])) == ["types"]


def test_equal_facts_give_equal_figures(road: SmallRoad, facts: dict[str, Any]) -> None:
    again = json.loads(json.dumps(facts))
    assert draw(again, road.artifacts["model"]) == draw(facts, road.artifacts["model"])
