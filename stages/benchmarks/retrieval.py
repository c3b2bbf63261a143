"""Questions about captioned pictures: retrieval in both directions, and caption against its own negatives.

From the test split of a dataset artifact, and from the test split of Karpathy's COCO and Flickr30k.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import tables
from pipeline.artifact import Artifact
from pipeline.schema import NEGATIVE_TYPES
from stages.benchmarks import fields as annotations
from stages.benchmarks.rows import Picture, Row, Subset


class Captioned(NamedTuple):
    """One caption of one picture."""

    row_id: str
    image_key: str
    picture: Picture
    caption: str


def karpathy(benchmark: str) -> Callable[[Path], Iterator[Subset]]:
    """Reader of the test split of one captioned set, every caption asked (COCO's has 25,010 for 5,000 pictures)."""

    def read(folder: Path) -> Iterator[Subset]:
        for path in annotations.only(folder, "*.json", *KARPATHY[benchmark]):
            rows = list(karpathy_test(path, folder / "images"))
            yield from _both_directions(benchmark, annotations.digest(path), rows, rows)

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
    content = annotations.read_json(path)
    whole = isinstance(content, dict)
    found = annotations.field(path, "", content, "images", list) if whole else content
    count = 0
    for index, item in enumerate(found if isinstance(found, list) else []):
        row_id = str(index)
        if whole and annotations.text(path, row_id, item, "split") != "test":
            continue
        if whole:
            folder = annotations.text(path, row_id, item, "filepath") + "/" if "filepath" in item else ""
            name = folder + annotations.text(path, row_id, item, "filename")
            sentences = annotations.field(path, row_id, item, "sentences", list)
            captions = [annotations.text(path, row_id, sentence, "raw") for sentence in sentences]
        else:
            name = annotations.text(path, row_id, item, "image")
            given = annotations.field(path, row_id, item, "caption", str | list)
            listed = [given] if isinstance(given, str) else given
            captions = [annotations.worded(path, row_id, "caption", caption) for caption in listed]
        if not captions:
            annotations.wrong(path, row_id, "captions", captions, "at least one")
        _, picture = annotations.below(path, row_id, "picture", name, images)
        for order, caption in enumerate(captions):
            yield Captioned(f"{index}.{order}", name, picture, caption.strip())
        count += 1
    if not count:
        annotations.wrong(path, "", "rows of the test split", count, "at least one")


def retrieval(dataset: Artifact, image_root: Path, most: int) -> list[Subset]:
    """The test split of a dataset artifact, both directions; a caption written of several pictures is asked once."""
    rows = [
        Captioned(row["pair_id"], row["image_key"], Picture(image_root / row["image_uri"]), row["caption"])
        for row in _test_split(dataset, most)
    ]
    once = {row.caption: row for row in reversed(rows)}
    asked = [row for row in rows if once[row.caption] is row]
    return _both_directions("retrieval", dataset.digest, rows, asked) if rows else []


def heldout(dataset: Artifact, image_root: Path, most: int) -> list[Subset]:
    """The test split of a dataset artifact: caption against each of its own negatives, one subset per type."""
    captions = _test_split(dataset, most)
    subsets = []
    for kind in NEGATIVE_TYPES:
        rows = tuple(
            Row(row["pair_id"], row["image_key"], Picture(image_root / row["image_uri"]), (row["caption"], row[kind]))
            for row in captions
            if row[kind] is not None
        )
        if rows:
            subsets.append(Subset("heldout", kind, "choice", "wrong", dataset.digest, rows))
    return subsets


def _both_directions(
    benchmark: str, digest: str, rows: Sequence[Captioned], asked: Sequence[Captioned]
) -> list[Subset]:
    """Every picture among the distinct captions, and the asked captions among the pictures.

    A caption written of several pictures is one option, right for each of them: equal texts cannot be told apart.
    """
    picture_at: dict[str, int] = {}
    shown: dict[str, Picture] = {}
    text_at: dict[str, int] = {}
    texts_of: dict[str, list[int]] = defaultdict(list)
    pictures_of: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        shown.setdefault(row.image_key, row.picture)
        picture_at.setdefault(row.image_key, len(picture_at))
        text_at.setdefault(row.caption, len(text_at))
        texts_of[row.image_key].append(text_at[row.caption])
        pictures_of[row.caption].append(picture_at[row.image_key])
    to_text = tuple(Row(key, key, picture, (), tuple(texts_of[key])) for key, picture in shown.items())
    to_image = tuple(
        Row(row.row_id, row.image_key, None, (row.caption,), tuple(pictures_of[row.caption])) for row in asked
    )
    prompts = tuple((text,) for text in text_at)
    return [
        Subset(benchmark, "i2t", "image_to_text", "wrong", digest, to_text, prompts),
        Subset(benchmark, "t2i", "text_to_image", "wrong", digest, to_image, (), tuple(shown.values())),
    ]


def _test_split(dataset: Artifact, most: int) -> list[dict[str, Any]]:
    """Rows of the test split, of at most `most` pictures (the first by pair_id, which is a hash)."""
    with tables.connect({"dataset": dataset.table_folder("dataset")}) as sql:
        table = sql.sql(
            f"""with test as (select image_key, image_uri, pair_id, caption, {", ".join(NEGATIVE_TYPES)}
                              from dataset where split = 'test'),
                     chosen as (select image_key from test group by 1 order by min(pair_id) limit $1)
                select test.* from test semi join chosen using (image_key) order by pair_id""",  # noqa: S608
            params=[most],
        ).to_arrow_table()
    return list(table.to_pylist())
