"""Retrieval by long captions: Urban-1k and DCI. Most captions are longer than the 77 tokens that CLIP reads."""

from collections.abc import Iterator
from pathlib import Path

from stages.benchmarks import fields
from stages.benchmarks.retrieval import Captioned, both_directions
from stages.benchmarks.rows import Subset


def read_urban1k(folder: Path) -> Iterator[Subset]:
    """caption/<n>.txt, whose first line is the caption of image/<n>.jpg."""
    files = sorted((folder / "caption").glob("*.txt"), key=lambda path: (len(path.stem), path.stem))
    rows = []
    for path in files:
        _, image = fields.below(path, "", "name", f"{path.stem}.jpg", folder / "image")
        caption = fields.worded(path, "1", "caption", fields.first_line(path))
        rows.append(Captioned(path.stem, f"urban1k:{path.stem}", image, caption))
    if rows:
        yield from both_directions("urban1k_retrieval", fields.digest_of(files), rows, rows)


def read_dci(folder: Path) -> Iterator[Subset]:
    """annotations/*.json of {image, short_caption, extra_caption}; images in photos/.

    The caption is extra_caption, the long one; images without it are left out, as in the published evaluations.
    """
    files = sorted((folder / "annotations").glob("*.json"))
    rows = []
    for path in files:
        item = fields.read_json(path)
        key, image = fields.image(path, "", item, "image", folder / "photos")
        caption = fields.field(path, "", item, "extra_caption", str).strip()
        if caption:
            rows.append(Captioned(path.stem, key, image, fields.worded(path, "", "extra_caption", caption)))
    if rows:
        yield from both_directions("dci_retrieval", fields.digest_of(files), rows, rows)
