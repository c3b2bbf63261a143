"""What'sUp: which way two things lie; photographs that differ in nothing else, and images of COCO and Visual Genome."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Present, each, mean
from stages.benchmarks.rows import Row, Subset

CONTROLLED = {
    "controlled_images": ("left", "right", "on", "under"),
    "controlled_clevr": ("left", "right", "in-front", "behind"),
}
"""The sets A and B, and the four places of each, by pairs of opposites."""

QUESTIONS = ("coco_qa_one_obj", "coco_qa_two_obj", "vg_qa_one_obj", "vg_qa_two_obj")


def read(folder: Path) -> Iterator[Subset]:
    """Six files. The first option is always the right one, and as the authors' argmax goes, a tie is right.

    controlled_*_dataset.json: [{image_path, caption_options}], images by the last part of the path, below the folder of
    that name; each also as sets of the four images of two things. *_qa_*_obj.json: [[number, right, wrong]], images
    val2017/000000000139.jpg and vg_images/2.jpg.
    """
    known = [*(f"{name}_dataset.json" for name in CONTROLLED), *(f"{name}.json" for name in QUESTIONS)]
    for path in fields.only(folder, "*.json", *known):
        name, digest = path.stem.removesuffix("_dataset"), fields.digest(path)
        if name in QUESTIONS:
            rows = tuple(_question(path, row_id, item) for row_id, item in fields.items(path))
            yield Subset("whatsup", name, "choice", "right", digest, rows)
            continue
        rows = tuple(_controlled(path, name, row_id, item) for row_id, item in fields.items(path))
        yield Subset("whatsup", name, "choice", "right", digest, rows)
        yield Subset("whatsup", f"{name}.sets", "set", "right", digest, tuple(_sets(path, rows, CONTROLLED[name])))


def _controlled(path: Path, name: str, row_id: str, item: Any) -> Row:
    file = fields.text(path, row_id, item, "image_path").rpartition("/")[2]
    _, image = fields.below(path, row_id, "image_path", file, path.parent / name)
    options = fields.field(path, row_id, item, "caption_options", list)
    if len(options) != 4:
        fields.wrong(path, row_id, "caption_options", options, "four texts")
    return Row(row_id, file, image, tuple(fields.worded(path, row_id, "caption_options", one) for one in options))


def _question(path: Path, row_id: str, item: Any) -> Row:
    if not isinstance(item, list) or len(item) != 3 or not str(item[0]).isascii() or not str(item[0]).isdigit():
        fields.wrong(path, row_id, "row", item, "[number of the image, right text, wrong text]")
    coco = path.stem.startswith("coco")
    name = f"{int(item[0]):012d}.jpg" if coco else f"{int(item[0])}.jpg"
    _, image = fields.below(path, row_id, "row", name, path.parent / ("val2017" if coco else "vg_images"))
    return Row(row_id, name, image, tuple(fields.worded(path, row_id, "row", one) for one in item[1:]))


def _sets(path: Path, rows: tuple[Row, ...], places: tuple[str, ...]) -> Iterator[Row]:
    """The four images of the same two things, in the order of the places, and the text of each."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        thing, *rest = Path(row.image_key).stem.split("_")  # mug_left_of_table, mug_on_table
        if len(rest) < 2:
            fields.wrong(path, row.row_id, "image_path", row.image_key, "a name like mug_left_of_table.jpeg")
        found.setdefault((thing, rest[-1]), {})[rest[0]] = row
    for things, by_place in found.items():
        if set(by_place) != set(places):
            fields.wrong(path, "", f"the places of {things}", sorted(by_place), ", ".join(places))
        first, *others = (by_place[place] for place in places)
        images = tuple(row.image for row in others if row.image)
        texts = (first.texts[0], *(row.texts[0] for row in others))
        yield Row("_".join(things), first.image_key, first.image, texts, others=images)


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """The plain mean of the files; each file; of the controlled ones also pairs of opposites and whole sets."""
    files = [name for name in names if not name.endswith(".sets")]
    says = f"plain mean of {len(files)} files: the image finds its text"
    made = [mean(f"{benchmark}.mean", says, [[(benchmark, name, None)] for name in files])] if files else []
    for name in files:
        made += each(benchmark, [name], 0.25 if name in CONTROLLED else 0.5)
    for name in names:
        if name.endswith(".sets"):
            rows, stem = [[(benchmark, name, None)]], name.removesuffix(".sets")
            says = "both images of two opposite places find their texts"
            made.append(mean(f"{benchmark}.{stem}.pairs", says, rows, measure="pairs", chance=1 / 16))
            made.append(mean(f"{benchmark}.{name}", "all four images find their texts", rows, chance=1 / 256))
    return made
