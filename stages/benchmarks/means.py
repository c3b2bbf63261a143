"""Named means: what a benchmark averages over, under which names, and what each name says.

"Average" alone means three or four different things on the same benchmark (one published run is 74.1, 75.4, 76.6 or
76.1 on VALSE by rule alone), so a mean has a name here or it does not exist. A name stands for one set: where a part of
it is not there, or no row of the part was scored, the mean goes by another name, or its rule says how many parts there
were. Each benchmark's own are beside its reader; all of them are computed from the scores table
(stages/evaluate/aggregates.py).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Question = Literal["composition", "retention"]
"""What a mean over the whole of it answers: what was learned, and what was kept."""

Selector = tuple[str, str, str | None]
"""benchmark, subset, group; group None = all rows of the subset."""

Cells = tuple[tuple[tuple[Selector, ...], float], ...]
"""The rows of each cell, and its weight."""

Present = Mapping[tuple[str, str], Iterable[str]]
"""(benchmark, subset) -> the groups its rows are in."""

RANKS = {"correct": 1, "at5": 5, "at10": 10}
"""Measures: the right option beats all wrong ones, or all but 4, or all but 9."""


def own_first(similarities: Sequence[float]) -> Iterator[list[float]]:
    """Of a set of K images and K texts: those of each image, its own text first."""
    count = math.isqrt(len(similarities))
    for image in range(count):
        row = list(similarities[image * count : (image + 1) * count])
        yield [row.pop(image), *row]


def _pairs(similarities: list[float]) -> float:
    own = [first >= max(rest) for first, *rest in own_first(similarities)]
    return sum(map(min, own[::2], own[1::2])) * 2 / len(own)


SIDES: dict[str, Callable[[list[float]], float]] = {
    "text": lambda s: s[0] > s[1] and s[3] > s[2],
    "image": lambda s: s[0] > s[2] and s[3] > s[1],
    "original": lambda s: s[0] > s[2],
    "brittle": lambda s: (s[0] > s[2] > s[1]) or (s[1] > s[2] > s[0]),
    "ordered": lambda s: s[1] > s[0] > s[2],
    "pairs": _pairs,
}
"""Measures of a square: each image finds its text, each text finds its image; `correct` asks for both. Of two right
texts and a wrong one: the first beats it; the wrong one comes between them; the second beats the first and that beats
the wrong one. Of a set: the share of its pairs (images 0-1, 2-3, ...) that both find their texts. A tie counts as not
so, but in a set as so."""


@dataclass(frozen=True)
class Aggregate:
    """A named mean: sum over cells of weight · mean of the cell's rows.

    Attributes:
        name: what it is called everywhere.
        says: the rule in words.
        cells: the rows of each cell, and its weight.
        measure: what is averaged, a key of `RANKS` or `SIDES`.
        chance: what guessing scores, or None where that depends on the rows.
        headline: composition or retention when it answers that question as a whole.
        subset: the subset it is the score of, when it is the one score of one subset.
        told_by_text: whether its texts alone tell the right one by how the set is made, so that no headline counts it.
    """

    name: str
    says: str
    cells: Cells
    measure: str = "correct"
    chance: float | None = None
    headline: str | None = None
    subset: str | None = None
    told_by_text: bool = False

    @property
    def benchmark(self) -> str:
        """Whose it is, the first part of its name."""
        return self.name.partition(".")[0]

    @property
    def selectors(self) -> list[Selector]:
        """The rows of all cells."""
        return [selector for rows, _ in self.cells for selector in rows]


Means = Callable[[str, list[str], Present], list[Aggregate]]
"""A benchmark, its subsets in order of name, and all that is present -> its aggregates in the order of a report."""


def heads(made: Iterable[Aggregate]) -> list[Cells]:
    """The one score of each subset."""
    return [item.cells for item in made if item.subset]


def nested(parts: Sequence[Sequence[Cells]]) -> Cells:
    """Mean of the parts, each the mean of its means."""
    return tuple((rows, weight / len(part) / len(parts)) for part in parts for cells in part for rows, weight in cells)


def mean(name: str, says: str, cells: Iterable[Iterable[Selector]], **rest: Any) -> Aggregate:
    """Plain mean over cells; the rest are fields of the aggregate."""
    listed = [tuple(rows) for rows in cells]
    return Aggregate(name, says, tuple((rows, 1 / len(listed)) for rows in listed), **rest)


def each(benchmark: str, names: Iterable[str], chance: float) -> list[Aggregate]:
    """The accuracy of each subset."""
    return [
        mean(f"{benchmark}.{name}", "accuracy", [[(benchmark, name, None)]], chance=chance, subset=name)
        for name in names
    ]


def pairwise(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Of a benchmark that chooses between two texts: mean of the subsets, micro accuracy, each subset."""
    every: list[Selector] = [(benchmark, name, None) for name in names]
    return [
        mean(f"{benchmark}.mean", f"plain mean of {len(names)} subsets", [[row] for row in every], chance=0.5),
        mean(f"{benchmark}.micro", f"accuracy over all rows of {len(names)} subsets", [every], chance=0.5),
        *each(benchmark, names, 0.5),
    ]


def square(benchmark: str, names: list[str], main: Literal["image", "correct"]) -> list[Aggregate]:
    """Of a benchmark of two images and two texts: text, image and group score; `main` is also given by subset."""
    every: list[Selector] = [(benchmark, name, None) for name in names]
    sides = {"text": "each picture finds its caption", "image": "each caption finds its picture", "correct": "both"}
    made = []
    for measure, says in sides.items():
        rest: dict[str, Any] = {"measure": measure, "chance": 1 / 6 if measure == "correct" else 0.25}
        called = "group" if measure == "correct" else measure
        made.append(mean(f"{benchmark}.{called}", says, [every], **rest))
        if measure == main and len(names) == 1:
            made[-1] = replace(made[-1], subset=names[0])
        elif measure == main:
            made += [mean(f"{benchmark}.{one[1]}.{called}", says, [[one]], subset=one[1], **rest) for one in every]
    return made
