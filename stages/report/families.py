"""Which question a benchmark asks, and which mean answers a question as a whole: the one place that decides it."""

from collections.abc import Container
from typing import Literal

Question = Literal["composition", "retention"]
"""Did compositional understanding go up; was what the model knew kept."""

Family = Literal["composition", "heldout", "retention", "robust"]
"""Benchmarks of composition, held-out negatives, benchmarks of retention, rows under attack."""

ANSWERS: dict[Question, tuple[str, ...]] = {
    "composition": ("composition", "heldout.mean"),
    "retention": ("zeroshot.mean", "retrieval.mean_r1"),
}
"""The means that answer a question as a whole; the first that was scored counts."""

_FAMILIES: dict[str, Family] = {
    "heldout": "heldout",
    "robust": "robust",
    **dict.fromkeys(("zeroshot", "retrieval", "coco_retrieval", "flickr30k_retrieval"), "retention"),
}


def family(benchmark: str) -> Family:
    """The family of a benchmark; one that is not listed asks for composition."""
    return _FAMILIES.get(benchmark, "composition")


def answer(question: Question, scored: Container[str]) -> str | None:
    """The mean that answers a question, among those scored; None when there is none."""
    return next((name for name in ANSWERS[question] if name in scored), None)
