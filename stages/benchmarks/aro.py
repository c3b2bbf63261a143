"""ARO: relations and attributes exchanged inside a box of an image, and the word order of captions."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Present, each, heads, mean, nested
from stages.benchmarks.registry import registry
from stages.benchmarks.rows import Row, Subset

ORDER_OPTIONS = 5
FEWEST_OF_A_PAIR = 25
"""Rows that a pair of attributes needs to count in the macro mean."""


def read(folder: Path) -> Iterator[Subset]:
    """The image is cut to the row's box. Macro groups: relations that are not symmetric; attribute pairs of >= 25."""
    readers = {
        "visual_genome_relation.json": _vg_relation,
        "visual_genome_attribution.json": _vg_attribution,
        "coco_order.json": _order,
        "flickr30k_order.json": _order,
    }
    for path in fields.only(folder, "*.json", *readers):
        yield readers[path.name](folder, path)


def _vg_relation(folder: Path, path: Path) -> Subset:
    symmetric = frozenset(registry()["aro"]["not_in_macro"])
    rows = []
    for row_id, item in fields.items(path):
        relation = fields.text(path, row_id, item, "relation_name")
        rows.append(_boxed(folder, path, row_id, item, None if relation in symmetric else relation))
    return Subset("aro", "vg_relation", "choice", "wrong", fields.digest(path), tuple(rows))


def _vg_attribution(folder: Path, path: Path) -> Subset:
    found = list(fields.items(path))
    pairs = []
    for row_id, item in found:
        attributes = fields.field(path, row_id, item, "attributes", list)
        pairs.append("_".join(fields.worded(path, row_id, "attributes", one) for one in attributes))
    size = Counter(pairs)
    rows = (
        _boxed(folder, path, row_id, item, pair if size[pair] >= FEWEST_OF_A_PAIR else None)
        for (row_id, item), pair in zip(found, pairs, strict=True)
    )
    return Subset("aro", "vg_attribution", "choice", "wrong", fields.digest(path), tuple(rows))


def _boxed(folder: Path, path: Path, row_id: str, item: Any, group: str | None) -> Row:
    box = fields.box(path, row_id, item, "bbox_x", "bbox_y", "bbox_w", "bbox_h")
    name, image = fields.image(path, row_id, item, "image_path", folder / "images", box)
    return Row(row_id, name, image, fields.texts(path, row_id, item, "true_caption", "false_caption"), group=group)


def _order(folder: Path, path: Path) -> Subset:
    """The caption and its four foils; `degla data foils` makes such files."""
    rows = []
    for row_id, item in fields.items(path):
        name, image = fields.image(path, row_id, item, "image_path", folder / "images")
        options = fields.field(path, row_id, item, "caption_options", list)
        if len(options) != ORDER_OPTIONS:
            fields.wrong(path, row_id, "caption_options", options, f"{ORDER_OPTIONS} texts, the caption first")
        texts = tuple(fields.worded(path, row_id, "caption_options", option) for option in options)
        rows.append(Row(row_id, name, image, texts))
    return Subset("aro", path.stem, "choice", "right", fields.digest(path), tuple(rows))


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """The mean of Visual Genome's sets; then each set, those as macro mean and over all rows; then the mean of all.

    No headline counts the order sets: which text is in order can be told without the image.
    """
    made = []
    units = {
        "vg_attribution": f"attribute pairs of >= {FEWEST_OF_A_PAIR} rows",
        "vg_relation": "relations, symmetric ones left out",
    }
    for name in [name for name in units if name in names]:
        every = [[(benchmark, name, None)]]
        groups = sorted(present[benchmark, name])
        if groups:
            cells = [[(benchmark, name, group)] for group in groups]
            says = f"mean over {len(groups)} {units[name]}"
            made.append(mean(f"{benchmark}.{name}.macro", says, cells, chance=0.5, subset=name))
            made.append(mean(f"{benchmark}.{name}.micro", "accuracy over all rows", every, chance=0.5))
        else:
            made.append(mean(f"{benchmark}.{name}.micro", "accuracy over all rows", every, chance=0.5, subset=name))
    if len(heads(made)) == len(units):
        says = "mean of the two sets from Visual Genome, without word order"
        made.insert(0, Aggregate(f"{benchmark}.mean_vg", says, nested([heads(made)]), chance=0.5))
    order = [name for name in names if name not in units]
    made += [replace(one, told_by_text=True) for one in each(benchmark, order, 1 / ORDER_OPTIONS)]
    if len(names) == 4:
        says = "mean of the two macros and the two order sets"
        made.append(Aggregate(f"{benchmark}.mean4", says, nested([heads(made)]), told_by_text=True))
    elif order and len(names) > 1:
        says = f"mean of the sets, {len(names)} of 4"
        made.append(Aggregate(f"{benchmark}.mean_sets", says, nested([heads(made)]), told_by_text=True))
    return made
