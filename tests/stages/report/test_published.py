"""The published scores are facts about papers: their cells must agree with the means the papers print."""

import json
from collections import defaultdict

import pytest

from stages.benchmarks.means import Aggregate
from stages.benchmarks.registry import registry
from stages.benchmarks.valse import PHENOMENA
from stages.evaluate.aggregates import definitions
from stages.report import Config
from stages.report.facts import gather
from stages.report.published import HEADS, PUBLISHED, composition_levels, published
from tests.stages.report.reading import altered, with_aggregate
from tests.stages.small_road import SmallRoad

SCORES: dict[str, dict[str, float]] = defaultdict(dict)
PRINTED: dict[str, dict[str, float]] = defaultdict(dict)
for _one in json.loads(PUBLISHED.read_text()):
    SCORES[_one["model"]][_one["score"]] = _one["value"]
    if _one["how"].startswith("printed"):
        PRINTED[_one["model"]][_one["score"]] = _one["value"]


def rules() -> list[Aggregate]:
    """Those of our means, with every file there."""
    present: dict[tuple[str, str], list[str]] = {
        (name, subset): [] for name in ("sugarcrepe", "valse") for subset in registry()[name]["subsets"]
    }
    present |= {("aro", subset): ["a"] for subset in registry()["aro"]["subsets"]}
    present |= {("zeroshot", subset): ["a"] for subset in registry()["zeroshot"]["subsets"]}
    others = ("winoground", "cola", "colorswap", "coco_counterfactuals", "sugarcrepe_pp", "negbench")
    present |= {(name, subset): ["a"] for name in others for subset in registry()[name]["subsets"]}
    return definitions(present)


def test_every_published_score_has_a_rule_of_ours() -> None:
    known = {item.name for item in rules()}
    assert "DeGLA" in SCORES
    assert {name for scores in SCORES.values() for name in scores} <= known
    assert set(HEADS.values()) <= known


@pytest.mark.parametrize("model", sorted(model for model, scores in PRINTED.items() if "sugarcrepe.macro7" in scores))
def test_the_mean_a_paper_prints_over_sugarcrepe_is_that_of_the_cells_it_prints(model: str) -> None:
    cells = [PRINTED[model][f"sugarcrepe.{subset}"] for subset in registry()["sugarcrepe"]["subsets"]]
    assert PRINTED[model]["sugarcrepe.macro7"] == pytest.approx(sum(cells) / 7, abs=0.06)


@pytest.mark.parametrize("model", sorted(model for model, scores in PRINTED.items() if "aro.mean4" in scores))
def test_the_means_a_paper_prints_over_aro_and_valse_are_those_of_the_cells_it_prints(model: str) -> None:
    printed, names = PRINTED[model], ("vg_relation.macro", "vg_attribution.macro", "coco_order", "flickr30k_order")
    assert printed["aro.mean4"] == pytest.approx(sum(printed[f"aro.{name}"] for name in names) / 4, abs=0.06)
    others = [printed[f"valse.{name}"] for name, phenomenon in PHENOMENA.items() if phenomenon != "counting"]
    counting = 9 * SCORES[model]["valse.mean9"] - sum(others)  # the printed column of the three counting files
    assert printed["valse.mean11"] == pytest.approx((sum(others) + 3 * counting) / 11, abs=0.1)


def test_what_is_restated_of_sugarcrepe_is_our_rule_over_the_cells_a_paper_prints() -> None:
    compared = 0
    for item in rules():
        for model, scores in SCORES.items():
            files = {f"sugarcrepe.{subset}" for subset in registry()["sugarcrepe"]["subsets"]}
            if item.benchmark != "sugarcrepe" or item.subset or item.name not in scores or item.name in PRINTED[model]:
                continue
            if not files & set(scores):
                continue  # a rerun, of which only the mean is known
            cells = [(SCORES[model][".".join(rows[0][:2])], weight) for rows, weight in item.cells]
            assert scores[item.name] == pytest.approx(sum(cell * weight for cell, weight in cells), abs=0.006)
            compared += 1
    assert compared == 26, "three groups of each of seven models, and the mean of five that print none"


def test_published_scores_are_joined_by_rule_and_only_on_the_official_files(road: SmallRoad) -> None:
    """Joined by the name of the rule; never for the built-in world, nor when rows are missing."""
    scores = road.artifacts["scores"]
    assert gather(Config(), road.artifacts)["published"]["rows"] == []
    official = altered(scores, meta=scores.meta | {"official": True})
    found = gather(Config(), {**road.artifacts, "scores": official})["published"]
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["sugarcrepe.swap_att"]["values"]["DeGLA"] == 82.1 and "DeGLA" in found["models"]
    assert "sugarcrepe.macro7" not in rows, "two of seven subsets are another rule"
    short = with_aggregate(scores, "sugarcrepe.swap_att", n=3)
    names = {row["name"] for row in published(short.meta["aggregates"], ("before", "after"), True)["rows"]}
    assert names and "sugarcrepe.swap_att" not in names


def test_published_composition_is_the_mean_of_what_papers_print(road: SmallRoad) -> None:
    """Levels are drawn only where every benchmark of our composition is official, whole and printed by the paper."""
    meta = json.loads(json.dumps(road.artifacts["scores"].meta)) | {"official": True}
    for name in ("sugarcrepe.macro7", "valse.mean11", "aro.mean_vg"):
        meta["aggregates"][name] = meta["aggregates"]["composition"] | {"headline": None}
    ours = meta["aggregates"]["composition"] | {"name": "composition"}
    whole = {one["label"]: one["value"] for one in composition_levels(ours, meta)}
    assert whole["DeGLA"] == pytest.approx((89.2 + 74.1 + (81.6 + 74.3) / 2) / 300, abs=1e-3)
    meta["protocols"] = {name: rule for name, rule in meta["protocols"].items() if not name.startswith("aro.")}
    official = altered(road.artifacts["scores"], meta=meta)
    found = gather(Config(), {**road.artifacts, "scores": official})["trade"]["levels"]
    levels = {one["label"]: one["value"] for one in found}
    assert levels["DeGLA"] == pytest.approx((89.2 + 74.1) / 200, abs=1e-3)
    assert "READ-CLIP" not in levels, "it prints no mean over VALSE's files"
    assert composition_levels(ours, meta) == found
    assert composition_levels(ours, meta | {"official": False}) == []
    assert composition_levels(ours | {"n": ours["of"] - 1}, meta) == []


def test_order_sets_are_joined_by_digest_and_not_by_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their foils are drawn at each loading, so files of the right length need not be the papers' rows."""
    names = ("aro.coco_order", "aro.flickr30k_order", "aro.mean4", "aro.vg_relation.macro", "aro.vg_attribution.macro")
    ours = {name: {"n": 9, "of": 9, "model": {"value": 0.5}} for name in names}

    def joined() -> set[str]:
        return {row["name"] for row in published(ours, ("model",), True)["rows"]}

    assert joined() == {"aro.vg_relation.macro", "aro.vg_attribution.macro"}
    for name in ("coco_order", "flickr30k_order"):  # once a digest is registered, the loader holds files against it
        monkeypatch.setitem(registry()["aro"]["subsets"][name], "sha256", "0" * 64)
    assert joined() == set(names)


def test_the_doubted_row_is_marked_and_stands_apart_from_what_the_paper_prints() -> None:
    rows = json.loads(PUBLISHED.read_text())
    doubted = [one for one in rows if one["model"] == "DeGLA (rerun, GELU?)"]
    assert len(doubted) == 15 and all("GELU where" in one["how"] for one in doubted)
    assert not [one for one in rows if one["model"] == "DeGLA" and "rerun" in one["how"]]
    assert len({(one["model"], one["score"]) for one in rows}) == len(rows)
