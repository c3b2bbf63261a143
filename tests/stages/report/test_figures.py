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
    assert list(drawn) == [name for name in FIGURES if name not in ("robust", "types")]
    for name, figure in drawn.items():
        assert figure.title == FIGURES[name][0] and len(figure.alt) > 10, name
        assert figure.svg.startswith("<?xml") and figure.uri.startswith("data:image/svg+xml;base64,"), name


def test_a_figure_shows_the_subsets_of_its_family(road: SmallRoad, facts: dict[str, Any]) -> None:
    drawn = draw(facts, road.artifacts["model"])
    assert "sugarcrepe.swap_att" in drawn["composition"].alt and "aro.vg_relation" in drawn["composition"].alt
    assert "heldout.swap_nouns" in drawn["heldout"].alt and "zeroshot.circles.top1" in drawn["retention"].alt
    for name, family in (("composition", ("heldout", "zeroshot", "retrieval")), ("retention", ("valse", "heldout"))):
        assert not any(benchmark in drawn[name].alt for benchmark in family)
    assert drawn["forgetting"].alt == drawn["retention"].alt
    assert "sugarcrepe.macro2" not in drawn["composition"].alt, "means are no subsets"


def test_attacked_means_stand_beside_their_clean_rows(road: SmallRoad, facts: dict[str, Any]) -> None:
    (row,) = (row for one in facts["benchmarks"] for row in one["rows"] if row["name"] == "zeroshot.mean")
    rows = [
        row | {"name": "robust.zeroshot.mean", "subset": None},
        row | {"name": "robust.zeroshot.circles.attacked", "subset": "zeroshot.circles.attacked"},
    ]
    attacked = facts | {"benchmarks": [*facts["benchmarks"], {"key": "robust", "about": {}, "rows": rows}]}
    drawn = draw(attacked, road.artifacts["model"])
    assert "robust.zeroshot.mean" in drawn["robust"].alt and "circles.attacked" not in drawn["robust"].alt
    assert drawn["overview"].svg == draw(facts, road.artifacts["model"])["overview"].svg


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
