"""VisMin-bench: two images that differ in one object, attribute, count or relation, and a caption of each."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.errors import UserError
from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Present, square
from stages.benchmarks.records import records
from stages.benchmarks.records import square as square_row
from stages.benchmarks.rows import Row, Subset

SOLUTION = "sim_solution.csv"
STRAIGHT = "T0_I0 > T1_I0 & T1_I1 > T0_I1"
CROSSED = "T1_I0 > T0_I0 & T0_I1 > T1_I1"
"""What must be more similar when each text is of the image with its number, and when it is of the other one."""


def read(folder: Path) -> Iterator[Subset]:
    """The published Arrow (or Parquet) shards of {image_0, text_0, image_1, text_1, category}, one subset per category.

    In half of the rows the texts stand crosswise. Which is which is said by sim_solution.csv of the authors' repository
    {idx, Text, Image, category}, row by row, so without it nothing can be scored.
    """
    shards = [path for ending in ("arrow", "parquet") for path in sorted(folder.rglob(f"*.{ending}"))]
    if not shards:
        return
    solution = folder / SOLUTION
    if not solution.is_file():
        raise UserError(
            "evaluate", f"{folder} has no {SOLUTION}", "which text is of which image", "degla data fetch vismin"
        )
    asked = [
        (path, record._replace(row_id=f"{path.stem}:{record.row_id}"))
        for path in shards
        for record in records(path, ("text_0", "text_1", "category"), ("image_0", "image_1"), folder)
    ]
    answers = list(fields.table(solution))
    if len(answers) != len(asked):
        fields.wrong(solution, "", "rows", len(answers), f"{len(asked)}, as the shards have")
    rows: dict[str, list[Row]] = {}
    called: Counter[tuple[str, str]] = Counter()
    for (path, record), (row_id, answer) in zip(asked, answers, strict=True):
        row = square_row(path, record, "text_0", "text_1", prefix="vismin:")
        order, category = fields.texts(solution, row_id, answer, "Text", "category")
        if order not in (STRAIGHT, CROSSED):
            fields.wrong(solution, row_id, "Text", order, f"{STRAIGHT}, or {CROSSED}")
        rows.setdefault(category, []).append(row if order == STRAIGHT else replace(row, texts=row.texts[::-1]))
        called[fields.text(path, record.row_id, record.item, "category"), category] += 1
    if not len(called) == len({theirs for theirs, _ in called}) == len(rows):
        fields.wrong(solution, "", "category", sorted(called), "the shards' categories, row by row")
    digest = "+".join(fields.digest(path) for path in (solution, *shards))
    for category in sorted(rows):
        yield Subset("vismin", category, "square", "wrong", digest, tuple(rows[category]))


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Text, image and group score; it is known by the group score."""
    return square(benchmark, names, "correct")
