"""Making pairs: every row of the source read once, its caption and image examined, kept or rejected with a reason."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import tables
from pipeline.artifact import SCRATCH, unit_interval
from pipeline.errors import UserError
from pipeline.schema import PAIRS, PAIRS_NEGATIVES, PAIRS_REJECTED
from pipeline.stage import Progress
from stages.images import ImageFacts, examine
from stages.ingest import sources
from stages.ingest.config import Config
from stages.ingest.records import Record
from stages.world import datasets as world
from stages.world.scenes import CONCEPTS

ROWS = pa.schema({"number": pa.int64(), "pair_id": pa.string(), "caption": pa.string(), "record": pa.string()})
"""What was read, on disk so that memory does not grow with the source: a row's place in it, its pair's id (null for a
row the source itself calls unusable), its caption as it will stand in PAIRS (null for an unusable row), and the Record
as JSON, which keeps what UTF-8 cannot (lone surrogates)."""
REMEMBERED = 1 << 18
"""Images whose facts stay in memory: the captions of one image may stand far apart (COCO's do)."""


def make(config: Config, out: Path, progress: Progress) -> dict[str, Any]:
    """Make the `pairs` artifact.

    Raises UserError when the captions file cannot be read, or when too few rows are usable.
    """
    source = sources.find(config.source, config.root, config.format)
    shards, copies = _read(config, source, out, progress)
    total = sum(tables.rows(path) for path in shards)
    examined = lru_cache(REMEMBERED)(partial(examine, source.images or out / "images", max_pixels=config.max_pixels))
    done = accepted = rejected = 0
    with ThreadPoolExecutor(config.workers) as pool:
        for index, path in enumerate(shards):
            rows, target = tables.part(out, index), tables.part(out / "pairs_rejected", index)
            if not (rows.exists() and target.exists()):
                shard = pq.read_table(path).to_pylist()
                records = [Record(**json.loads(row["record"])) for row in shard]
                names = list(dict.fromkeys(record.image for record in records if record.fault is None))
                images = dict(zip(names, pool.map(examined, names), strict=True))
                good, bad, brought = [], [], []
                for row, record in zip(shard, records, strict=True):
                    if record.fault is not None:
                        bad.append(_rejected(record, *record.fault))
                    elif (image := images[record.image]).reason is not None:
                        bad.append(_rejected(record, image.reason, image.detail))
                    elif row["number"] in copies:
                        bad.append(_rejected(record, "duplicate", "the same caption of the same picture came before"))
                    else:
                        good.append(_pair(config, row, record, image))
                        brought += _brought(config, row, record)
                tables.write(target, bad, PAIRS_REJECTED)
                if brought:
                    tables.write(tables.part(out / "pairs_negatives", index), brought, PAIRS_NEGATIVES)
                tables.write(rows, good, PAIRS)
            accepted += tables.rows(rows)
            rejected += tables.rows(target)
            done += tables.rows(path)
            progress("captions", done, total)

    _accept(config, out, accepted, rejected)
    collection = str(source.images) if source.images else "images"
    return {"image_root": collection, "source": config.source, "accepted": accepted, "rejected": rejected}


def _read(config: Config, source: sources.Source, out: Path, progress: Progress) -> tuple[list[Path], set[int]]:
    """Read the source into parts of ROWS, once; the parts, and the numbers of rows that repeat an earlier row."""
    folder = out / SCRATCH / "rows"
    is_read = folder / "whole"
    if not is_read.exists():
        if sources.SOURCES[source.name].built_in:
            records = _draw(config, out, progress)
        else:
            records = sources.read(source, out / "images", progress)
        number = 0
        for index, shard in enumerate(iter(lambda: list(islice(records, config.shard)), [])):
            rows = [_row(config, number + place, record) for place, record in enumerate(shard)]
            tables.write(tables.part(folder, index), rows, ROWS)
            number += len(shard)
        if not number:
            raise UserError("ingest", "the captions file holds no row", "at least one", "check ingest.format.captions")
        tables.write_text(is_read, "")
    with tables.connect({"rows": folder}) as sql:
        sql.execute("set temp_directory = $1", [str(out / SCRATCH / "duckdb")])
        repeated = sql.sql(
            "select number from rows where pair_id is not null "
            "qualify row_number() over (partition by pair_id order by number) > 1"
        )
        copies = set(repeated.fetchnumpy()["number"].tolist())
    return tables.files(folder), copies


def _draw(config: Config, out: Path, progress: Progress) -> Iterator[Record]:
    """Draw the built-in world."""
    settings = config.world
    if settings.benchmark_rows:
        seed = settings.benchmark_seed
        world.write_benchmarks(out / "benchmarks", settings.benchmark_rows, seed, settings.size, progress)
    concepts = CONCEPTS[settings.concepts]
    for drawn in world.write_pairs(
        *(out, settings.pictures, settings.seed, concepts, settings.captions, settings.size, progress),
        wide_share=settings.wide_share,
    ):
        name, scene = drawn.path.name, json.dumps(drawn.scene.to_json())
        for caption in drawn.captions:
            yield Record(f"scene {name}", name, drawn.key, caption, scene=scene)


def _row(config: Config, number: int, record: Record) -> dict[str, Any]:
    """One of ROWS; a caption that cannot be used becomes the record's fault."""
    words = record.caption.split()
    caption = " ".join(words)
    content = f"{record.image_key}\0{caption}".encode(errors="replace")
    pair_id = None if record.fault else hashlib.sha256(content).hexdigest()[:16]
    if record.fault is None:
        record = record._replace(fault=_caption_fault(config, record.caption, words))
    usable = caption if record.fault is None else None
    return {"number": number, "pair_id": pair_id, "caption": usable, "record": json.dumps(record._asdict())}


def _caption_fault(config: Config, caption: str, words: list[str]) -> tuple[str, str] | None:
    """Why a caption cannot be used, as reason and detail; None when it can."""
    if not words:
        return "caption_empty", "no word"
    if len(words) > config.max_words:
        return "caption_too_long", f"{len(words)} words"
    if not all(word.isprintable() for word in words):
        return "caption_unprintable", repr(caption[:80])
    return None


def _brought(config: Config, row: dict[str, Any], record: Record) -> list[dict[str, Any]]:
    """The source's own negatives of a pair, as they stand there."""
    types = record.types or (None,) * len(record.negatives)
    return [
        {"pair_id": row["pair_id"], "type": kind, "text": text, "origin": f"{config.source} {record.origin}"}
        for text, kind in zip(record.negatives, types, strict=True)
    ]


def _pair(config: Config, row: dict[str, Any], record: Record, image: ImageFacts) -> dict[str, Any]:
    return {
        "pair_id": row["pair_id"],
        "image_key": record.image_key,
        "image_uri": image.name,
        "image_sha256": image.sha256,
        "phash": image.phash,
        "width": image.width,
        "height": image.height,
        "caption": row["caption"],
        "source": config.source,
        "split": record.split or _split(config, image.sha256),
        "scene": record.scene,
    }


def _rejected(record: Record, reason: str, detail: str) -> dict[str, Any]:
    image, caption, detail = (text.encode(errors="replace").decode() for text in (record.image, record.caption, detail))
    return {"origin": record.origin, "image_uri": image, "caption": caption, "reason": reason, "detail": detail}


def _split(config: Config, sha256: str) -> str:
    """By the image's bytes, so that copies of one image never stand on both sides."""
    draw = unit_interval(f"{config.split_seed}:{sha256}")
    if draw < config.test_share:
        return "test"
    return "val" if draw < config.test_share + config.val_share else "train"


def _accept(config: Config, out: Path, accepted: int, rejected: int) -> None:
    if accepted and rejected <= config.max_reject_rate * (accepted + rejected):
        return
    with tables.connect({"rejected": out / "pairs_rejected"}) as sql:
        worst = sql.sql(
            "select reason, count(*), first(origin || ' ' || detail) from rejected group by 1 order by 2 desc limit 1"
        ).fetchall()[0]
    raise UserError(
        "ingest",
        f"{rejected} of {accepted + rejected} rows rejected, most for {worst[0]} ({worst[1]}, e.g. {worst[2]})",
        f"at most {config.max_reject_rate:.0%}",
        "correct the source, or raise ingest.max_reject_rate",
    )
