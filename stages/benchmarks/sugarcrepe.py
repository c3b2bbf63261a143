"""SugarCrepe: seven files of one image, a caption and a hard negative."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Present, Selector, each, mean
from stages.benchmarks.rows import Row, Subset


def read(folder: Path) -> Iterator[Subset]:
    """Seven dicts of {filename, caption, negative_caption}."""
    for path in sorted(folder.glob("*.json")):
        yield Subset("sugarcrepe", path.stem, "choice", "wrong", fields.digest(path), tuple(_rows(folder, path)))


def _rows(folder: Path, path: Path) -> Iterator[Row]:
    for row_id, item in fields.items(path):
        name, image = fields.image(path, row_id, item, "filename", folder / "images")
        yield Row(row_id, name, image, fields.texts(path, row_id, item, "caption", "negative_caption"))


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Over the files, over the three groups, over all rows; then each group and each file."""
    groups: dict[str, list[Selector]] = {}
    for name in names:
        groups.setdefault(name.partition("_")[0], []).append((benchmark, name, None))
    every = [row for rows in groups.values() for row in rows]
    made = [
        mean(f"{benchmark}.macro{len(names)}", "plain mean of the subsets", [[row] for row in every]),
        mean(f"{benchmark}.group_micro", "mean over replace, swap, add of their micro (FSC-CLIP)", groups.values()),
        mean(f"{benchmark}.micro", "accuracy over all rows", [every]),
    ]
    for group, rows in groups.items():
        made.append(mean(f"{benchmark}.{group}", f"plain mean of {group}_* (DeGLA, CE-CLIP)", [[row] for row in rows]))
    return [*(replace(item, chance=0.5) for item in made), *each(benchmark, names, 0.5)]
