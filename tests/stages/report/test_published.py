"""The published scores are facts about papers: their cells must agree with the means the papers print."""

import json
from collections import defaultdict

import pytest

from stages.benchmarks.registry import registry
from stages.benchmarks.valse import PHENOMENA
from stages.evaluate.aggregates import definitions
from stages.report.facts import PUBLISHED

SCORES: dict[str, dict[str, float]] = defaultdict(dict)
for _one in json.loads(PUBLISHED.read_text()):
    SCORES[_one["model"]][_one["score"]] = _one["value"]


def test_every_published_score_has_a_rule_of_ours() -> None:
    present = {(name, subset): [] for name in ("sugarcrepe", "valse") for subset in registry()[name]["subsets"]}
    present |= {("aro", subset): ["a"] for subset in registry()["aro"]["subsets"]}
    present |= {("zeroshot", subset): ["a"] for subset in registry()["zeroshot"]["subsets"]}
    known = {item.name for item in definitions(present)}
    assert {name for scores in SCORES.values() for name in scores} <= known


@pytest.mark.parametrize("model", sorted(SCORES))
def test_printed_means_are_the_means_of_the_cells(model: str) -> None:
    scores = SCORES[model]
    cells = [scores[f"sugarcrepe.{subset}"] for subset in registry()["sugarcrepe"]["subsets"]]
    assert scores["sugarcrepe.macro7"] == pytest.approx(sum(cells) / 7, abs=0.06)
    if "aro.mean4" in scores:
        names = ("vg_relation.macro", "vg_attribution.macro", "coco_order", "flickr30k_order")
        assert scores["aro.mean4"] == pytest.approx(sum(scores[f"aro.{name}"] for name in names) / 4, abs=0.06)
    if "valse.mean11" in scores:
        others = [scores[f"valse.{name}"] for name, phenomenon in PHENOMENA.items() if phenomenon != "counting"]
        counting = 9 * scores["valse.mean9"] - sum(others)
        assert scores["valse.mean11"] == pytest.approx((sum(others) + 3 * counting) / 11, abs=0.1)
