"""Rows of other benchmarks, attacked and untouched, as a benchmark of its own; made by stages/evaluate/robustness.py.

The subsets are `<benchmark>.<subset>.clean` and `<benchmark>.<subset>.attacked`.
"""

from stages.benchmarks.means import Aggregate, Present, mean

BENCHMARK = "robust"
SIDES = ("clean", "attacked")


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Zero-shot sets, then pairwise ones: attacked and untouched, and each set under attack."""
    made = []
    for question, asks in (("zeroshot", True), ("pairs", False)):
        sets = [name.removesuffix(".attacked") for name in names if name.endswith(".attacked")]
        sets = [name for name in sets if name.startswith("zeroshot.") is asks]
        for side, end, says in (("attacked", "mean", "under attack"), ("clean", "clean", "the same rows, untouched")):
            if sets:
                rows = [[(benchmark, f"{name}.{side}", None)] for name in sets]
                made.append(mean(f"{benchmark}.{question}.{end}", f"plain mean of {len(sets)} sets, {says}", rows))
        for name in sets:
            one = f"{name}.attacked"
            made.append(mean(f"{benchmark}.{name}", "accuracy under attack", [[(benchmark, one, None)]], subset=one))
    return made
