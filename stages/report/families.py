"""Which mean answers a question as a whole."""

from collections.abc import Container

from stages.benchmarks.loaders import Family, Question, about

ANSWERS: dict[Question, tuple[str, ...]] = {
    "composition": ("composition", "heldout.mean"),
    "retention": ("zeroshot.mean", "retrieval.mean_r1"),
}
"""The means that answer a question as a whole; the first that was scored counts."""


def family(benchmark: str) -> Family:
    """The family of a benchmark; one that is not listed asks for composition."""
    return about(benchmark).family


def answer(question: Question, scored: Container[str]) -> str | None:
    """The mean that answers a question, among those scored; None when there is none."""
    return next((name for name in ANSWERS[question] if name in scored), None)
