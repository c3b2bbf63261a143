"""Verdicts: what a change shows, held against those who never see a picture; the answers of the two questions."""

from typing import Any

import pytest

from stages.verdicts import ANSWERS, answer, best_blind, headline, p_value, side_by_side, verdict


def estimate(value: float, half: float = 0.02) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half}


def aggregate(before: float, after: float, half: float = 0.02, p: float = 0.001, **more: Any) -> dict[str, Any]:
    """An aggregate whose intervals reach `half` each way."""
    change = estimate(after - before, half) | {"p": p, "detectable": 0.028}
    both = {"before": estimate(before, half), "after": estimate(after, half), "difference": change}
    return {"n": 100, "chance": 0.5, "measure": "correct", **both} | more


JUDGED: dict[str, Any] = {"blind": {"rule": estimate(0.55), "ngrams": estimate(0.6)}}


def test_negatives_that_a_judge_tells_without_looking_show_no_understanding() -> None:
    """The case of a run whose rules leave a mark on every negative: 92 % right, and blind 90 %."""
    found = verdict("heldout.mean", aggregate(0.44, 0.92, blind={"ngrams": estimate(0.9), "rule": estimate(0.5)}))
    assert found.word == "blind"
    assert found.says == (
        "+48.0 points (95 % interval +46.0 to +50.0), but a judge that never sees a picture (ngrams) reaches 90.0 % "
        "(88.0 to 92.0) and the model 92.0 % (90.0 to 94.0): this does not show understanding of pictures."
    )


@pytest.mark.parametrize(
    ("case", "word", "says"),
    [
        (aggregate(0.6, 0.7, **JUDGED), "up", "better than before: +10.0 points"),
        (aggregate(0.6, 0.64, half=0.021, **JUDGED), "blind", "and the model 64.0 % (61.9 to 66.1)"),
        (aggregate(0.6, 0.7), "unjudged", "no judge without pictures was scored"),
        (aggregate(0.3, 0.45, blind={}), "blind", "but guessing reaches 50.0 % and the model"),
        (aggregate(0.7, 0.6, **JUDGED), "down", "worse than before: −10.0 points"),
        (aggregate(0.6, 0.61, **JUDGED), "unclear", "the interval includes no change"),
        (aggregate(0.6, 0.7, p=0.2, **JUDGED), "unclear", "p 0.200, not below 0.05"),
        (aggregate(0.6, 0.7, difference={"value": None}), "unknown", "Nothing was scored."),
    ],
)
def test_composition_is_better_only_above_every_judge_without_pictures(
    case: dict[str, Any], word: str, says: str
) -> None:
    found = verdict("composition", case)
    assert found.word == word and says in found.says
    assert ("understands composition better" in found.says) == (word == "up")


@pytest.mark.parametrize(
    ("case", "word", "says"),
    [
        (aggregate(0.6, 0.7, chance=None), "up", "Nothing was lost"),
        (aggregate(0.7, 0.6), "down", "forgotten: −10.0 points"),
        (aggregate(0.6, 0.61), "unclear", "the interval includes no change and losses of up to 1.0 points."),
    ],
)
def test_retention_says_no_more_than_the_interval(case: dict[str, Any], word: str, says: str) -> None:
    found = verdict("zeroshot.mean", case)
    assert found.word == word and says in found.says


def test_a_model_that_started_from_random_weights_retains_nothing() -> None:
    found = verdict("retrieval.mean_r1", aggregate(0.01, 0.033, half=0.005), random_start=True)
    assert found.word == "new"
    assert found.says == ("Trained from random weights, so there was nothing to retain: 1.0 % before, 3.3 % after.")
    assert verdict("heldout.mean", aggregate(0.5, 0.7, **JUDGED), random_start=True).word == "up"


def test_of_two_models_none_of_which_is_the_others_start_nothing_is_retained_or_forgotten() -> None:
    better, lost = aggregate(0.6, 0.7, **JUDGED), aggregate(0.7, 0.6)
    assert "better than ViT-B-32: +10.0" in verdict("composition", better, than="ViT-B-32").says
    assert verdict("zeroshot.mean", lost, than="ViT-B-32").says.startswith("Worse than ViT-B-32: −10.0 points")
    found = verdict("zeroshot.mean", lost, than="ViT-B-32", random_start=True)
    assert found.says == "ViT-B-32 has random weights: 70.0 % before, 60.0 % after."


def test_a_single_set_is_called_by_the_p_that_is_printed() -> None:
    case = aggregate(0.6, 0.7, **JUDGED)
    case["difference"] |= {"p": 0.01, "p_holm": 0.08}
    assert p_value(case["difference"]) == 0.08 and verdict("sugarcrepe.swap_att", case).word == "unclear"


def test_where_both_images_have_the_same_texts_guessing_is_all_that_is_reached_blind() -> None:
    assert verdict("winoground.group", aggregate(0.2, 0.3, chance=1 / 6)).word == "up"
    assert verdict("winoground.group", aggregate(0.1, 0.17, chance=1 / 6)).word == "blind"
    assert verdict("sugarcrepe_pp.itt", aggregate(0.4, 0.5, chance=1 / 3)).word == "unjudged"


def test_of_a_score_that_should_be_low_a_rise_is_worse() -> None:
    assert verdict("hard_positives.a.brittleness", aggregate(0.2, 0.3, measure="brittle")).word == "down"
    assert verdict("hard_positives.a.brittleness", aggregate(0.3, 0.2, measure="brittle")).word != "down"


def test_the_best_of_the_judges_is_named() -> None:
    assert best_blind(JUDGED) == estimate(0.6)
    assert best_blind({}) is None and best_blind({"blind": {}}) is None


def test_the_headline_falls_back_passes_over_what_was_not_scored_and_admits_ignorance() -> None:
    found = headline({"composition": aggregate(0.5, 0.5) | {"n": 0}, "heldout.mean": aggregate(0.5, 0.7, **JUDGED)})
    assert found["composition"][0] == "heldout.mean" and found["composition"][1].word == "up"
    assert found["retention"] == ("", ("unknown", "Nothing measures it here."))


def test_the_papers_benchmarks_stand_side_by_side_by_the_mean_that_is_there() -> None:
    named = ("composition", "aro.coco_order", "valse.mean_files", "valse.mean11", "sugarcrepe.mean_files", "cola.group")
    found = {name: aggregate(0.5, 0.6) for name in named} | {"zeroshot.mean": aggregate(0.5, 0.5) | {"n": 0}}
    assert side_by_side(found) == {
        "sugarcrepe": "sugarcrepe.mean_files", "valse": "valse.mean11", "aro": "aro.coco_order",
    }  # fmt: skip


def test_the_first_mean_that_was_scored_answers() -> None:
    assert answer("composition", {"heldout.mean", "composition"}) == "composition"
    assert answer("composition", {"heldout.mean", "sugarcrepe.macro7"}) == "heldout.mean"
    assert answer("retention", {"retrieval.mean_r1"}) == "retrieval.mean_r1"
    assert answer("retention", {"composition"}) is None
    assert list(ANSWERS) == ["composition", "retention"], "the order of the page"
