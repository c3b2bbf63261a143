"""The gallery: both models' margins of held-out images, the clearest changes, nothing that is noise."""

import dataclasses
from pathlib import Path

import pytest

from pipeline import tables
from pipeline.artifact import Artifact
from pipeline.schema import SCORES
from stages.report import gallery
from tests.stages.small_road import SmallRoad


def moved(road: SmallRoad, folder: Path, by: dict[tuple[str, str], tuple[float, float]]) -> dict[str, Artifact]:
    """The same artifacts with other margins before and after, by pair and type; those of all others are 0.5 twice."""
    rows = tables.read(road.artifacts["scores"].path).to_pylist()
    for row in rows:
        if row["benchmark"] == "heldout":
            before, after = by.get((row["row_id"], row["subset"]), (0.5, 0.5))
            row["similarities"] = [{"before": before, "after": after}.get(row["model"], 0.0), 0.0]
    tables.write(tables.part(folder, 0), rows, SCORES)
    return {**road.artifacts, "scores": dataclasses.replace(road.artifacts["scores"], path=folder)}


def test_margins_of_both_models_are_those_of_the_scores(road: SmallRoad) -> None:
    told = {
        (row["model"], row["subset"], row["row_id"]): row["similarities"]
        for row in tables.read(road.artifacts["scores"].path).to_pylist()
        if row["benchmark"] == "heldout"
    }
    found = gallery.cards(road.artifacts, 12)
    assert 0 < len(found) <= 12
    for card in found:
        assert card["negatives"]
        for one in card["negatives"]:
            for model in ("before", "after"):
                true, false = told[model, one["type"], card["pair_id"]]
                assert one[model] == pytest.approx(true - false, abs=1e-6)
        assert card["won"] == sum(one["after"] > 0 >= one["before"] for one in card["negatives"])
    for key in ("image_key", "caption"):
        shown = [card[key] for card in found]
        assert len(set(shown)) == len(shown), "no image and no caption twice"


def test_gains_and_losses_come_by_the_size_of_their_change_and_noise_is_left_out(
    road: SmallRoad, tmp_path: Path
) -> None:
    first, second, third, fourth = (f"{index:016x}" for index in (0, 3, 6, 9))
    inputs = moved(
        road,
        tmp_path,
        {
            (first, "swap_nouns"): (-0.001, 0.002),  # turned right, by nothing
            (second, "swap_nouns"): (-0.1, 0.1),
            (second, "replace_nouns"): (0.2, 0.205),
            (third, "swap_nouns"): (-0.2, 0.3),
            (fourth, "swap_adjectives"): (0.1, -0.1),
        },
    )
    found = gallery.cards(inputs, 12)
    assert [card["pair_id"] for card in found] == [third, second, fourth]
    assert [(card["won"], card["lost"]) for card in found] == [(1, 0), (1, 0), (0, 1)]
    assert [one["type"] for one in found[1]["negatives"]] == ["swap_nouns"] and found[1]["left_out"] == 3
    assert [word for word, changed in found[0]["negatives"][0]["words"] if changed] == ["square", "circle"]


def test_where_nothing_changed_nothing_is_shown(road: SmallRoad, tmp_path: Path) -> None:
    assert gallery.cards(moved(road, tmp_path, {}), 12) == []
