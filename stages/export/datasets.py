"""Writers from the dataset to other projects' formats: nobody is locked in, and ingest reads them back."""

import csv
import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from pipeline import tables
from pipeline.artifact import Artifact
from pipeline.errors import UserError
from pipeline.negative_types import types_in
from stages.images import SUFFIXES

DatasetFormat = Literal["negclip_tsv", "degla_json", "webdataset"]
SHARD = 1000


def export(dataset: Artifact, image_root: Path, kind: DatasetFormat, target: Path, split: str = "train") -> int:
    """Write one split of a dataset.

    Args:
        dataset: the dataset artifact.
        image_root: folder the dataset's image paths are relative to.
        kind: `negclip_tsv` and `degla_json` name the images, `webdataset` holds them (shards of 1,000 pairs).
        target: a file, or for webdataset a folder that is not there yet; written whole or not at all.
        split: which rows.

    Returns:
        Rows written.

    Raises:
        UserError: the format cannot say what the dataset holds, or an image is missing.
    """
    types = types_in(tables.columns(dataset.path))
    columns = ["image_key", "image_uri", "caption", *types, "split"]
    rows = (
        row | {"negatives": [row[kind] for kind in types if row[kind] is not None]}
        for batch in tables.batches(dataset.path, 4096, columns)
        for row in batch.to_pylist()
        if row["split"] == split
    )
    if kind == "webdataset":
        return _webdataset(rows, image_root, target)
    with tables.replacing(target) as unfinished:
        return (_negclip_tsv if kind == "negclip_tsv" else _degla_json)(rows, unfinished)


def _negclip_tsv(rows: Iterator[dict[str, Any]], target: Path) -> int:
    """title, filepath, neg_caption; neg_image, row numbers of mined neighbours, is left empty for its own miner."""
    written = 0
    with target.open("w", newline="", encoding="utf-8") as handle:
        sheet = csv.writer(handle, delimiter="\t")
        sheet.writerow(["", "title", "filepath", "neg_caption", "neg_image"])
        for written, row in enumerate(rows, start=1):
            sheet.writerow([written - 1, row["caption"], row["image_uri"], repr(row["negatives"]), "[]"])
    return written


def _degla_json(rows: Iterator[dict[str, Any]], target: Path) -> int:
    found, template = [], ""
    for row in rows:
        # The format says the number alone; the reader puts it into one template, which must then fit every image.
        before, number, after = re.fullmatch(r"(.*?)(\d{12})?(\.\w+)?", row["image_uri"], re.DOTALL).groups()  # type: ignore[union-attr]
        named = f"{before}{{:012d}}{after}"
        if number is None or not row["image_key"].startswith("coco:") or named != (template := template or named):
            raise UserError(
                "export",
                f"{row['image_uri']} has no COCO number" + (f" as in {template}" if number else ""),
                "COCO images of one collection",
                "export to webdataset instead",
            )
        found.append({"image_id": int(number), "original": row["caption"], "enhanced": row["negatives"]})
    target.write_text(json.dumps(found, ensure_ascii=False, indent=0), encoding="utf-8")
    return len(found)


def _webdataset(rows: Iterator[dict[str, Any]], image_root: Path, target: Path) -> int:
    """Shards of {key}.<suffix>, {key}.txt and {key}.json (image, caption; key and negatives), dates fixed."""
    if target.exists():
        raise UserError("export", f"{target} is there already", "a folder that is not there", "name a new folder")
    whole = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir(parents=True)
    written = 0
    for shard, group in groupby(enumerate(rows), key=lambda numbered: numbered[0] // SHARD):
        with tables.replacing(whole / f"{shard:05d}.tar") as unfinished, tarfile.open(unfinished, "w") as archive:
            for number, row in group:
                image = image_root / row["image_uri"]
                if not image.is_file():
                    raise UserError("export", f"{image} is not there", "every image", "degla run RUN --from ingest")
                facts = {"image_key": row["image_key"], "negatives": row["negatives"], "status": "success"}
                suffix = image.suffix.lower() if image.suffix.lower() in SUFFIXES else ".img"
                _add(archive, f"{number:08d}{suffix}", image.read_bytes())
                _add(archive, f"{number:08d}.txt", row["caption"].encode())
                _add(archive, f"{number:08d}.json", json.dumps(facts, ensure_ascii=False).encode())
                written = number + 1
    whole.replace(target)
    return written


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, BytesIO(content))
