"""MMVP-VLM: pairs of images that differ in one visual pattern, and a statement of each."""

from collections.abc import Iterator
from pathlib import Path

from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Present, square
from stages.benchmarks.rows import Row, Subset


def read(folder: Path) -> Iterator[Subset]:
    """Questions.csv: id, pattern, statement; rows 1-2, 3-4, ... are pairs whose images differ in that pattern.

    Its script asks for which of the two images "a photo of <statement>" scores higher. One subset per pattern.
    """
    for path in fields.only(folder, "*.csv", "Questions.csv"):
        found = [tuple(item.values()) for _, item in fields.table(path)]
        patterns: dict[str, list[Row]] = {}
        for index, (one, two) in enumerate(zip(found[::2], [*found[1::2], ()], strict=False)):
            row_id = str(2 * index + 1)
            if len(one) != 3 or len(two) != 3 or (one[0], two[0]) != (row_id, str(2 * index + 2)):
                fields.wrong(path, row_id, "pair", [one, two], "two rows (id, pattern, statement), ids 1-2, 3-4")
            pattern = fields.worded(path, row_id, "pattern", one[1])
            first, second = (
                fields.below(path, row_id, "pattern", f"{pattern}/{which[0]}.jpg", folder / "MLLM_VLM Images")[1]
                for which in (one, two)
            )
            texts = tuple(f"a photo of {fields.worded(path, row_id, 'statement', which[2])}" for which in (one, two))
            patterns.setdefault(pattern, []).append(Row(row_id, f"mmvp:{row_id}", first, texts, others=(second,)))
        for pattern, rows in patterns.items():
            name = pattern.lower().replace(" ", "_")
            yield Subset("mmvp", name, "square", "wrong", fields.digest(path), tuple(rows))


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Text, image and group score; it is known by the image score."""
    return square(benchmark, names, "image")
