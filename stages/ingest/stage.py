"""ingest: pictures with captions from any source become the `pairs` table; what cannot be used is kept with a reason.

Writes pairs (PAIRS), pairs_rejected (PAIRS_REJECTED), pairs_negatives (PAIRS_NEGATIVES) where the source brings
negatives, images/ where it packs pictures, and benchmarks/ for the built-in world.
"""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from pipeline import artifact, tables
from pipeline.artifact import SCRATCH
from pipeline.config import Config as BaseConfig
from pipeline.config import placement
from pipeline.errors import UserError
from pipeline.schema import PAIRS, PAIRS_NEGATIVES, PAIRS_REJECTED
from pipeline.stage import Inputs, Progress, Stage
from stages.images import Facts, examine
from stages.ingest import sources
from stages.ingest.sources import Format, Record

RECORDS = pa.schema({"number": pa.int64(), "pair_id": pa.string(), "record": pa.string()})
"""What was read, on disk so that memory does not grow with the source: a row's place in it, its id (null for one with a
fault), and the Record as JSON, which keeps what UTF-8 cannot (lone surrogates)."""
REMEMBERED = 1 << 18
"""Pictures whose facts stay in memory: the captions of one picture may stand far apart (COCO's do)."""


class World(BaseConfig):
    """The built-in world: what to draw."""

    pictures: int = Field(1500, ge=10, description="training pictures to draw")
    captions: int = Field(2, ge=1, le=5, description="captions per picture")
    concepts: Literal["wide", "narrow"] = Field("narrow", description="wide: everything; narrow: the fine-tuning set")
    size: int = Field(64, ge=32, le=512, description="picture side, pixels")
    seed: int = Field(42, ge=0, description="seed of the training pictures")
    benchmark_rows: int = Field(150, ge=0, description="rows per evaluation subset; 0 = no evaluation sets")


class Config(BaseConfig):
    """Where pairs come from and which are usable."""

    source: Literal[
        "scenes",
        "csv",
        "coco",
        "karpathy",
        "negclip_tsv",
        "degla_json",
        "webdataset",
        "parquet",
        "folder",
        "ce_clip",
        "cc_neg",
    ] = Field("csv", description="kind of source; scenes = the built-in world")
    root: Path | None = Field(None, description="folder of the captions file and the pictures")
    format: Format = Field(Format(), description="layout of the source")
    max_words: int = Field(60, ge=1, description="longest caption kept, words (CLIP reads 77 tokens)")
    max_pixels: int = Field(
        89_478_485,
        ge=1,
        le=178_956_970,
        description="largest picture opened, pixels; Pillow opens none above the maximum",
    )
    max_reject_rate: float = Field(0.5, ge=0, le=1, description="share of rows refused above which ingest fails")
    val_share: float = Field(0.05, ge=0, lt=1, description="share of pictures held out for checkpoint selection")
    test_share: float = Field(0.1, ge=0, lt=1, description="share of pictures held out for evaluation")
    split_seed: int = Field(0, ge=0, description="seed of the split; a picture's split depends on its bytes and this")
    world: World = Field(World(), description="settings of the built-in world (source: scenes)")
    shard: int = Field(2048, ge=1, description="rows per part; the most that a kill can cost")
    workers: int = placement(2, ge=1, description="threads that open pictures")


def outside(config: Config) -> dict[str, str]:
    """Digests of the captions file (content) and the picture folder (names, sizes, times)."""
    if config.source == "scenes":
        return {}
    files, images = sources.places(config.source, config.root, config.format)
    assert config.root is not None
    root = config.root.expanduser().resolve()
    if config.source == "webdataset":
        files = [*files, *(beside for path in files if (beside := path.with_suffix(".parquet")).is_file())]
    content = artifact.path_digest if images else artifact.listing_digest  # shards hold pictures: too large to hash
    digests = {f"captions {path.relative_to(root)}": content(path) for path in files}
    return digests | ({"images": artifact.listing_digest(images)} if images else {})


def run(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Make the `pairs` artifact.

    Raises UserError when the captions file cannot be read, or when too few rows are usable.
    """
    image_root, collection = out / "images", "images"
    if config.source != "scenes":
        assert config.root is not None
        if folder := sources.places(config.source, config.root, config.format)[1]:
            image_root, collection = folder, str(folder)
    shards, copies = _records(config, out, progress)
    total = sum(tables.rows(path) for path in shards)
    examined = lru_cache(REMEMBERED)(partial(examine, image_root, max_pixels=config.max_pixels))
    done = accepted = refused = 0
    with ThreadPoolExecutor(config.workers) as pool:
        for index, path in enumerate(shards):
            rows, target = tables.part(out, index), tables.part(out / "pairs_rejected", index)
            if not (rows.exists() and target.exists()):
                shard = pq.read_table(path).to_pylist()
                records = [Record(**json.loads(row["record"])) for row in shard]
                images = list(dict.fromkeys(record.image for record in records if record.fault is None))
                pictures = dict(zip(images, pool.map(examined, images), strict=True))
                good, bad, brought = [], [], []
                for row, record in zip(shard, records, strict=True):
                    fault = _fault(config, record, pictures, row["number"] not in copies)
                    if fault is None:
                        good.append(_pair(config, record, pictures[record.image]))
                        brought += _brought(config, record)
                    else:
                        bad.append(_rejected(record, *fault))
                tables.write(target, bad, PAIRS_REJECTED)
                if brought:
                    tables.write(tables.part(out / "pairs_negatives", index), brought, PAIRS_NEGATIVES)
                tables.write(rows, good, PAIRS)
            accepted += tables.rows(rows)
            refused += tables.rows(target)
            done += tables.rows(path)
            progress("captions", done, total)

    _accept(config, out, accepted, refused)
    return {"image_root": collection, "source": config.source, "accepted": accepted, "rejected": refused}


def _records(config: Config, out: Path, progress: Progress) -> tuple[list[Path], set[int]]:
    """Read the source into parts of RECORDS, once; the parts, and the numbers of rows that repeat an earlier row."""
    folder = out / SCRATCH / "records"
    is_read = folder / "whole"
    if not is_read.exists():
        if config.source == "scenes":
            records = _world(config, out, progress)
        else:
            assert config.root is not None
            records = sources.read(config.source, config.root, config.format, out / "images", progress)
        number = 0
        for index, shard in enumerate(iter(lambda: list(islice(records, config.shard)), [])):
            rows = [
                {
                    "number": number + place,
                    "pair_id": None if record.fault else _pair_id(record),
                    "record": json.dumps(record._asdict()),
                }
                for place, record in enumerate(shard)
            ]
            tables.write(tables.part(folder, index), rows, RECORDS)
            number += len(shard)
        if not number:
            raise UserError("ingest", "the captions file holds no row", "at least one", "check ingest.format.captions")
        tables.write_text(is_read, "")
    with tables.connect({"records": folder}) as sql:
        sql.execute("set temp_directory = $1", [str(out / SCRATCH / "duckdb")])
        found = sql.sql(
            "select number from records where pair_id is not null "
            "qualify row_number() over (partition by pair_id order by number) > 1"
        )
        copies = set(found.fetchnumpy()["number"].tolist())
    return tables.files(folder), copies


def _world(config: Config, out: Path, progress: Progress) -> Iterator[Record]:
    """Draw the built-in world."""
    from stages.world import datasets as scene_sets
    from stages.world.scenes import CONCEPTS

    world = config.world
    if world.benchmark_rows:
        scene_sets.write_benchmarks(out / "benchmarks", world.benchmark_rows, world.seed, world.size, progress)
    for drawn in scene_sets.write_pairs(
        out, world.pictures, world.seed, CONCEPTS[world.concepts], world.captions, world.size, progress
    ):
        key, scene = f"scenes:{world.concepts}:{drawn.path.stem}", json.dumps(drawn.scene.to_json())
        for caption in drawn.captions:
            yield Record(f"scene {drawn.name}", drawn.name, key, caption, scene=scene)


def _fault(config: Config, record: Record, pictures: dict[str, Facts], fresh: bool) -> tuple[str, str] | None:
    """Why a row cannot be used, as reason and detail; None when it can."""
    if record.fault is not None:
        return record.fault
    words = len(record.caption.split())
    if words == 0:
        return "caption_empty", "no word"
    if words > config.max_words:
        return "caption_too_long", f"{words} words"
    if any(not char.isprintable() for char in " ".join(record.caption.split())):
        return "caption_unprintable", repr(record.caption[:80])
    picture = pictures[record.image]
    if picture.reason is not None:
        return picture.reason, picture.detail
    return None if fresh else ("duplicate", "the same caption of the same picture came before")


def _brought(config: Config, record: Record) -> list[dict[str, Any]]:
    """The source's own negatives of a pair, as they stand there."""
    types = record.types or (None,) * len(record.negatives)
    return [
        {"pair_id": _pair_id(record), "type": kind, "text": text, "origin": f"{config.source} {record.origin}"}
        for text, kind in zip(record.negatives, types, strict=True)
    ]


def _caption(record: Record) -> str:
    return " ".join(record.caption.split())


def _pair_id(record: Record) -> str:
    return hashlib.sha256(f"{record.image_key}\0{_caption(record)}".encode(errors="replace")).hexdigest()[:16]


def _pair(config: Config, record: Record, picture: Facts) -> dict[str, Any]:
    return {
        "pair_id": _pair_id(record),
        "image_key": record.image_key,
        "image_uri": record.image,
        "image_sha256": picture.sha256,
        "phash": picture.phash,
        "width": picture.width,
        "height": picture.height,
        "caption": _caption(record),
        "source": config.source,
        "split": record.split or _split(config, picture.sha256),
        "scene": record.scene,
    }


def _rejected(record: Record, reason: str, detail: str) -> dict[str, Any]:
    image, caption, detail = (text.encode(errors="replace").decode() for text in (record.image, record.caption, detail))
    return {"origin": record.origin, "image_uri": image, "caption": caption, "reason": reason, "detail": detail}


def _split(config: Config, sha256: str) -> str:
    """By the picture's bytes, so that copies of one picture never stand on both sides."""
    draw = int(hashlib.sha256(f"{config.split_seed}:{sha256}".encode()).hexdigest()[:12], 16) / 16**12
    if draw < config.test_share:
        return "test"
    return "val" if draw < config.test_share + config.val_share else "train"


def _accept(config: Config, out: Path, accepted: int, refused: int) -> None:
    if accepted and refused <= config.max_reject_rate * (accepted + refused):
        return
    with tables.connect({"rejected": out / "pairs_rejected"}) as sql:
        worst = sql.sql(
            "select reason, count(*), first(origin || ' ' || detail) from rejected group by 1 order by 2 desc limit 1"
        ).fetchall()[0]
    raise UserError(
        "ingest",
        f"{refused} of {accepted + refused} rows refused, most for {worst[0]} ({worst[1]}, e.g. {worst[2]})",
        f"at most {config.max_reject_rate:.0%}",
        "mend the source, or raise ingest.max_reject_rate",
    )


STAGE = Stage(name="ingest", makes="pairs", needs=(), version=2, config=Config, outside=outside, run=run)
