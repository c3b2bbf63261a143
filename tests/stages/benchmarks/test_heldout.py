"""A dataset's own negatives as a benchmark."""

from pathlib import Path

import pytest

from stages.benchmarks import heldout
from tests.stages.small_road import SmallRoad, build
from tests.stages.training import small_inputs


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> SmallRoad:
    return build(tmp_path_factory.mktemp("home"))


def test_each_type_is_a_subset_of_captions_that_have_one(road: SmallRoad) -> None:
    subsets = heldout.from_dataset(road.artifacts["dataset"], road.artifacts["pairs"].path / "images", 5000)
    assert [subset.name for subset in subsets] == [
        "reshuffle_order", "swap_nouns", "swap_adjectives", "replace_nouns",
    ], "replace_adjectives has no negative here"  # fmt: skip
    swaps = subsets[2]
    assert (swaps.rule, swaps.tie, len(swaps.rows)) == ("choice", "wrong", 8), "a third of 24 pairs is the test split"
    for row in swaps.rows:
        assert row.image and row.image.path.is_file()
        (true, false) = row.texts
        assert sorted(true.split()) == sorted(false.split()) and true != false


def test_a_text_under_two_types_is_asked_about_once(tmp_path: Path) -> None:
    inputs = small_inputs(tmp_path, pictures=4, same=("swap_nouns", "swap_adjectives"))
    subsets = heldout.from_dataset(inputs["dataset"], Path("images"), 10)
    assert [(subset.name, len(subset.rows)) for subset in subsets] == [("swap_nouns", 1), ("replace_adjectives", 1)]


def test_no_more_images_than_asked(road: SmallRoad) -> None:
    subsets = heldout.from_dataset(road.artifacts["dataset"], Path("images"), 3)
    assert {len(subset.rows) for subset in subsets} == {3}


def test_the_mean_is_over_types() -> None:
    made = heldout.means("heldout", ["replace_nouns", "swap_nouns"], {})
    assert [item.name for item in made] == [
        "heldout.mean", "heldout.micro", "heldout.replace_nouns", "heldout.swap_nouns",
    ]  # fmt: skip
