"""SugarCrepe: seven files of one image, a caption and a hard negative."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Present, Selector, each, mean
from stages.benchmarks.rows import Row, Subset

GROUPS = {
    "add": ("add_att", "add_obj"),
    "replace": ("replace_att", "replace_obj", "replace_rel"),
    "swap": ("swap_att", "swap_obj"),
}
"""SugarCrepe's seven files by what makes the hard negative."""


def read(folder: Path) -> Iterator[Subset]:
    """Seven dicts of {filename, caption, negative_caption}."""
    for path in sorted(folder.glob("*.json")):
        yield Subset("sugarcrepe", path.stem, "choice", "wrong", fields.digest(path), tuple(_rows(folder, path)))


def _rows(folder: Path, path: Path) -> Iterator[Row]:
    for row_id, item in fields.items(path):
        name, image = fields.image(path, row_id, item, "filename", folder / "images")
        yield Row(row_id, name, image, fields.texts(path, row_id, item, "caption", "negative_caption"))


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """With all seven files there, over them, over the three groups, over all rows; else over those there are.

    Then each group whose files are all there, and each file.
    """
    every: list[Selector] = [(benchmark, name, None) for name in names]
    groups: dict[str, list[Selector]] = {
        group: [(benchmark, name, None) for name in files]
        for group, files in GROUPS.items()
        if set(files) <= set(names)
    }
    if sorted(names) == sorted(name for files in GROUPS.values() for name in files):
        made = [
            mean(f"{benchmark}.macro7", "plain mean of the 7 files", [[row] for row in every]),
            mean(f"{benchmark}.group_micro", "mean over replace, swap, add of their micro (FSC-CLIP)", groups.values()),
            mean(f"{benchmark}.micro", "accuracy over all rows", [every]),
        ]
    else:
        says = f"plain mean of the files, {len(names)} of 7"
        made = [mean(f"{benchmark}.mean_files", says, [[row] for row in every])]
    for group, rows in groups.items():
        made.append(mean(f"{benchmark}.{group}", f"plain mean of {group}_* (DeGLA, CE-CLIP)", [[row] for row in rows]))
    return [*(replace(item, chance=0.5) for item in made), *each(benchmark, names, 0.5)]
