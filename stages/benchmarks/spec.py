"""SPEC: size, position, existence and count; one image against K texts, and one text against K images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Present, mean
from stages.benchmarks.records import right_first
from stages.benchmarks.rows import ImageRef, Row, Rule, Subset

SUBSETS = ("absolute_size", "relative_size", "absolute_spatial", "relative_spatial", "existence", "count")


def read(folder: Path) -> Iterator[Subset]:
    """<subset>/image2text.json and text2image.json, [{query, keys, label}]; images are named as below <subset>/.

    The folder may also be the one that holds `data/`, as the published archive does.
    """
    base = folder / "data" if (folder / "data").is_dir() else folder
    for name in SUBSETS:
        for path in fields.only(base / name, "*.json", "image2text.json", "text2image.json"):
            forwards = path.stem == "image2text"
            rows = tuple(_row(path, row_id, item, forwards) for row_id, item in fields.items(path))
            rule: Rule = "choice" if forwards else "image_choice"
            yield Subset("spec", f"{name}.{'i2t' if forwards else 't2i'}", rule, "wrong", fields.digest(path), rows)


def _row(path: Path, row_id: str, item: Any, forwards: bool) -> Row:
    query = fields.text(path, row_id, item, "query")
    keys = [fields.worded(path, row_id, "keys", one) for one in fields.field(path, row_id, item, "keys", list)]
    ordered = right_first(path, row_id, "label", keys, fields.field(path, row_id, item, "label", int))
    names, texts = ([query], ordered) if forwards else (ordered, [query])
    first, *others = (_image(path, row_id, name) for name in names)
    # Its images are numbered by object: with a slash the number would be taken for Visual Genome's.
    key = f"spec:{path.parent.name}:{names[0].replace('/', ':')}"
    return Row(row_id, key, first, tuple(texts), others=tuple(others))


def _image(path: Path, row_id: str, name: str) -> ImageRef:
    return fields.below(path, row_id, "image", name, path.parent)[1]


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """The plain mean of the subsets in each direction, and each subset; how many options there are differs."""
    made = []
    for task, says in (("i2t", "the image finds its text"), ("t2i", "the text finds its image")):
        rows = [[(benchmark, name, None)] for name in names if name.endswith(f".{task}")]
        if rows:
            made.append(mean(f"{benchmark}.{task}", f"plain mean of {len(rows)} subsets: {says}", rows))
    return [*made, *(mean(f"{benchmark}.{n}", "accuracy", [[(benchmark, n, None)]], subset=n) for n in names)]
