"""Notes: what a reader must know before believing the figures stands on the page, and only where it is so."""

import json
from typing import Any

from stages.report import Config
from stages.report.facts import gather
from tests.stages.report.reading import altered, with_aggregate
from tests.stages.small_road import SmallRoad


def noted(road: SmallRoad, scores: Any = None, **config: Any) -> str:
    return "\n".join(
        gather(Config(**config), {**road.artifacts, "scores": scores or road.artifacts["scores"]})["notes"]
    )


def test_rows_that_were_not_scored_are_noted(road: SmallRoad) -> None:
    said = "sugarcrepe.swap_att: 3 of 4 rows scored, the images of the others are missing"
    assert said in noted(road, with_aggregate(road.artifacts["scores"], "sugarcrepe.swap_att", n=3))
    assert said not in noted(road)


def test_what_fell_and_what_is_solved_blind_are_named(road: SmallRoad) -> None:
    assert "valse.plurals" not in noted(road)
    fall = {"value": -0.3, "low": -0.4, "high": -0.2, "p": 0.001, "p_holm": 0.01, "detectable": 0.1}
    scores = with_aggregate(road.artifacts["scores"], "valse.plurals", difference=fall)
    assert "valse.plurals −30.0" in noted(road, scores).partition("Fell significantly: ")[2].splitlines()[0]
    blind: dict[str, Any] = {"blind": {"rule": {"value": 1.0, "low": 0.9, "high": 1.0}}}
    scores = with_aggregate(road.artifacts["scores"], "valse.plurals", **blind)
    assert "solves valse.plurals 100.0 %" in noted(road, scores)


def test_seed_start_generator_and_tuning_are_noted(road: SmallRoad) -> None:
    said = noted(road)
    assert "One training, seed 1" in said and "random weights" in said and "generator of the training ones" in said
    assert "tuned" not in said
    assert "“tuned on val.” Where it does not say" in noted(road, description="tuned on val.")
    meta = json.loads(json.dumps(road.artifacts["scores"].meta)) | {"random_start": False}
    assert "random weights" not in noted(road, altered(road.artifacts["scores"], meta=meta))


def test_a_training_too_short_to_change_anything_is_noted(road: SmallRoad) -> None:
    model = road.artifacts["model"]
    for reach, is_noted in ((2.4e-6, True), (4e-3, False)):
        road.artifacts["model"] = altered(model, meta=model.meta | {"reach": reach, "steps": 15})
        assert ("of all 15 steps add up to 2.4e-06" in noted(road)) is is_noted
    road.artifacts["model"] = model
