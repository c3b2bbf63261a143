"""Retrieval in both directions: in Karpathy's test splits of COCO and Flickr30k, and in a dataset's own test split."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import tables
from pipeline.artifact import Artifact
from pipeline.negative_types import types_in
from stages.benchmarks import fields
from stages.benchmarks.means import RANKS, Aggregate, Present, mean
from stages.benchmarks.rows import ImageRef, Row, Subset


class Captioned(NamedTuple):
    """One caption of one image."""

    row_id: str
    image_key: str
    image: ImageRef
    caption: str


def karpathy(benchmark: str) -> Callable[[Path], Iterator[Subset]]:
    """Reader of the test split of one captioned set, every caption a query (COCO's has 25,010 for 5,000 images)."""

    def read(folder: Path) -> Iterator[Subset]:
        for path in fields.only(folder, "*.json", *KARPATHY[benchmark]):
            rows = list(karpathy_test(path, folder / "images"))
            yield from both_directions(benchmark, fields.digest(path), rows, rows)

    return read


KARPATHY = {
    "coco_retrieval": ("dataset_coco.json", "coco_karpathy_test.json"),
    "flickr30k_retrieval": ("dataset_flickr30k.json", "flickr30k_test.json"),
}
"""Karpathy's file and BLIP's form of its test split."""


def karpathy_test(path: Path, images: Path) -> Iterator[Captioned]:
    """The test split, a caption at a time, from either form of the file.

    Karpathy's: {images: [{filepath (COCO only), filename, split, sentences: [{raw}]}]}. BLIP's: [{image, caption}],
    caption a text or a list of texts. Raises UserError for rows of another shape and when no row is of the test split.
    """
    content = fields.read_json(path)
    whole = isinstance(content, dict)
    found = fields.field(path, "", content, "images", list) if whole else content
    count = 0
    for index, item in enumerate(found if isinstance(found, list) else []):
        row_id = str(index)
        if whole and fields.text(path, row_id, item, "split") != "test":
            continue
        if whole:
            folder = fields.text(path, row_id, item, "filepath") + "/" if "filepath" in item else ""
            name = folder + fields.text(path, row_id, item, "filename")
            sentences = fields.field(path, row_id, item, "sentences", list)
            captions = [fields.text(path, row_id, sentence, "raw") for sentence in sentences]
        else:
            name = fields.text(path, row_id, item, "image")
            given = fields.field(path, row_id, item, "caption", str | list)
            listed = [given] if isinstance(given, str) else given
            captions = [fields.worded(path, row_id, "caption", caption) for caption in listed]
        if not captions:
            fields.wrong(path, row_id, "captions", captions, "at least one")
        _, image = fields.below(path, row_id, "image", name, images)
        for order, caption in enumerate(captions):
            yield Captioned(f"{index}.{order}", name, image, caption.strip())
        count += 1
    if not count:
        fields.wrong(path, "", "rows of the test split", count, "at least one")


def from_dataset(dataset: Artifact, image_root: Path, most: int) -> list[Subset]:
    """The test split of a dataset artifact, both directions; a caption written of several images is one query."""
    rows = [
        Captioned(row["pair_id"], row["image_key"], ImageRef(image_root / row["image_uri"]), row["caption"])
        for row in test_split(dataset, most)
    ]
    once = {row.caption: row for row in reversed(rows)}
    queries = [row for row in rows if once[row.caption] is row]
    return both_directions("retrieval", dataset.digest, rows, queries) if rows else []


def both_directions(
    benchmark: str, digest: str, rows: Sequence[Captioned], queries: Sequence[Captioned], prefix: str = ""
) -> list[Subset]:
    """Every image among the distinct captions, and the captions that are queries among the images: i2t and t2i.

    A caption written of several images is one option, right for each of them: equal texts cannot be told apart.
    """
    image_at: dict[str, int] = {}
    images: dict[str, ImageRef] = {}
    text_at: dict[str, int] = {}
    texts_of: dict[str, list[int]] = defaultdict(list)
    images_of: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        images.setdefault(row.image_key, row.image)
        image_at.setdefault(row.image_key, len(image_at))
        text_at.setdefault(row.caption, len(text_at))
        texts_of[row.image_key].append(text_at[row.caption])
        images_of[row.caption].append(image_at[row.image_key])
    to_text = tuple(Row(key, key, image, (), tuple(texts_of[key])) for key, image in images.items())
    to_image = tuple(
        Row(row.row_id, row.image_key, None, (row.caption,), tuple(images_of[row.caption])) for row in queries
    )
    prompts = tuple((text,) for text in text_at)
    return [
        Subset(benchmark, f"{prefix}i2t", "image_to_text", "wrong", digest, to_text, prompts),
        Subset(benchmark, f"{prefix}t2i", "text_to_image", "wrong", digest, to_image, (), tuple(images.values())),
    ]


def test_split(dataset: Artifact, most: int) -> list[dict[str, Any]]:
    """Rows of the test split, of at most `most` images (the first by pair_id, which is a hash)."""
    folder = dataset.table_folder("dataset")
    types = ", ".join(types_in(tables.columns(folder)))
    with tables.connect({"dataset": folder}) as sql:
        table = sql.sql(
            f"""with test as (select image_key, image_uri, pair_id, caption, {types}
                              from dataset where split = 'test'),
                     chosen as (select image_key from test group by 1 order by min(pair_id) limit $1)
                select test.* from test semi join chosen using (image_key) order by pair_id""",  # noqa: S608
            params=[most],
        ).to_arrow_table()
    return list(table.to_pylist())


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Recall at 1, 5 and 10 in both directions, after the mean of R@1."""
    every = [[(benchmark, name, None)] for name in names]
    made = [mean(f"{benchmark}.mean_r1", "plain mean of R@1 in both directions", every, headline="retention")]
    for name in names:
        for measure, k in RANKS.items():
            rest: dict[str, Any] = {"measure": measure} if k > 1 else {"subset": name}
            says = f"R@{k}: a right one among the first {k}"
            made.append(mean(f"{benchmark}.{name}_r{k}", says, [[(benchmark, name, None)]], **rest))
    return made
