"""Families: one place decides which question a benchmark asks; everything that is scored has a place in it."""

import pytest

from stages.benchmarks.registry import registry
from stages.report.families import ANSWERS, answer, family


@pytest.mark.parametrize(
    ("benchmark", "expected"),
    [
        ("sugarcrepe", "composition"),
        ("winoground", "composition"),
        ("heldout", "heldout"),
        ("robust", "robust"),
        ("zeroshot", "retention"),
        ("retrieval", "retention"),
        ("coco_retrieval", "retention"),
        ("flickr30k_retrieval", "retention"),
    ],
)
def test_a_benchmark_has_one_family(benchmark: str, expected: str) -> None:
    assert family(benchmark) == expected


def test_what_the_registry_calls_retrieval_or_zero_shot_asks_for_retention() -> None:
    kept = {name for name in registry() if name.endswith(("retrieval", "zeroshot"))}
    assert kept and kept == {name for name in registry() if family(name) == "retention"}


def test_the_first_mean_that_was_scored_answers() -> None:
    assert answer("composition", {"heldout.mean", "composition"}) == "composition"
    assert answer("composition", {"heldout.mean", "sugarcrepe.macro7"}) == "heldout.mean"
    assert answer("retention", {"retrieval.mean_r1"}) == "retrieval.mean_r1"
    assert answer("retention", {"composition"}) is None
    assert list(ANSWERS) == ["composition", "retention"], "the order of the page"
