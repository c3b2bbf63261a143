"""The captions of a pairs table in shards fixed by content, read one at a time, so that memory does not grow with them.

A caption belongs to the shard whose range of caption keys holds its own; the ranges cut the key space into equal
parts. Each distinct caption stands once, with every pair that has it and the other captions of that pair's image.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow.parquet as pq

from pipeline import tables
from pipeline.artifact import Artifact
from pipeline.errors import UserError
from pipeline.negative_types import ABSENCE, UNITS

_KEY_BITS = 64

KEY = "left(sha256(caption), 16)"
"""`responses.caption_key` in SQL."""


class Pair(NamedTuple):
    """A pair that has the caption: its id, its image, all captions of that (the caption itself among them), the
    negatives its source brought, when they are asked for, and the things that the image's scene graph names.
    """

    pair_id: str
    image_key: str
    siblings: list[str]
    given: list[str]
    shown: tuple[str, ...] = ()

    def known(self, kind: str) -> list[str]:
        """What is known of the image when a text of this kind is judged: its captions, for some all that it shows."""
        return [*self.siblings, *self.shown] if kind in (ABSENCE, UNITS) else self.siblings


class Entry(NamedTuple):
    """A distinct caption: its key, its text, its pairs."""

    key: str
    caption: str
    pairs: list[Pair]


@dataclass(frozen=True)
class Shards:
    """Shards 0..count-1 of one plan file.

    Attributes:
        plan: Parquet file of caption_key, caption, pair_id, image_key, siblings, given, shown, by caption_key and
            pair_id.
        count: how many shards, a power of two.
        captions: distinct captions in all.
        last: the last caption key that is read.
    """

    plan: Path
    count: int
    captions: int
    last: str = "f" * (_KEY_BITS // 4)

    def limited(self, captions: int) -> "Shards":
        """Those of the first so many captions by key alone: a random sample, since keys are hashes."""
        found = duckdb.read_parquet(str(self.plan)).project("caption_key").distinct().order("caption_key")
        keys = [key for (key,) in found.limit(captions).fetchall()]
        return replace(self, captions=len(keys), last=max(keys, default=""))

    def bounds(self, index: int) -> tuple[str, str]:
        """First and last caption key that may belong to a shard."""
        width = 2**_KEY_BITS // self.count
        return f"{index * width:016x}", f"{(index + 1) * width - 1:016x}"

    def read(self, index: int) -> list[Entry]:
        """The captions of one shard, by key."""
        first, last = self.bounds(index)
        rows = pq.read_table(
            self.plan,
            filters=[("caption_key", ">=", first), ("caption_key", "<=", min(last, self.last))],
            use_threads=False,
        ).to_pylist()
        return [
            Entry(key, pairs[0]["caption"], [_pair(row) for row in pairs])
            for key, group in groupby(rows, key=lambda row: row["caption_key"])
            if (pairs := list(group))
        ]

    def sample(self, limit: int) -> Iterator[str]:
        """Up to `limit` distinct captions, a random sample since keys are hashes."""
        taken = 0
        for batch in pq.ParquetFile(self.plan).iter_batches(batch_size=4096, columns=["caption_key", "caption"]):
            previous = ""
            for row in batch.to_pylist():
                if row["caption_key"] != previous and taken < limit:
                    taken, previous = taken + 1, row["caption_key"]
                    yield row["caption"]
            if taken >= limit:
                return


def _pair(row: dict[str, Any]) -> Pair:
    return Pair(row["pair_id"], row["image_key"], row["siblings"], row["given"] or [], tuple(row["shown"] or ()))


_PLAN = f"""
with
    images as (
        select image_key, list(distinct caption order by caption) as siblings,
            any_value(scene ->> '$.things[*].shape') as shown
        from pairs group by image_key
    ),
    brought as (
        select pair_id, list(text order by text) as given from pairs_negatives group by pair_id
    )
select {KEY} as caption_key, caption, pair_id, image_key, siblings, given, shown
from pairs join images using (image_key) left join brought using (pair_id)
order by caption_key, pair_id
"""  # noqa: S608


def make(pairs: Artifact, plan: Path, size: int, *, given: bool = False, memory: str = "256MB") -> Shards:
    """Write the plan of a pairs table and cut it into shards of about `size` captions, never more than twice that.

    Args:
        pairs: the artifact.
        plan: the file to write.
        size: captions per shard.
        given: also the negatives the source brought. Raises UserError when it brought none.
        memory: what DuckDB may use before it spills.
    """
    views = {"pairs": pairs.path}
    if given:
        views["pairs_negatives"] = pairs.path / "pairs_negatives"
        if not tables.files(views["pairs_negatives"]):
            raise UserError(
                "generate", "the pairs brought no negatives", "NegCLIP, DeGLA.json, ...", "generate.backend"
            )
    with tables.replacing(plan) as unfinished, tables.connect(views) as sql:
        sql.execute("set memory_limit = $memory", {"memory": memory})
        sql.execute("set temp_directory = $folder", {"folder": str(plan.parent / "spill")})
        sql.execute("set threads = 2")
        if not given:
            sql.execute("create table pairs_negatives (pair_id varchar, text varchar)")
        sql.sql(_PLAN).write_parquet(str(unfinished), compression="zstd", row_group_size=8192)
        counted = sql.read_parquet(str(unfinished)).aggregate("count(distinct caption_key)").fetchall()
    captions = int(counted[0][0])
    return Shards(plan, count_for(captions, size), captions)


def count_for(captions: int, size: int) -> int:
    """How many shards of about `size` captions so many make: a power of two."""
    count = 1
    while captions > size * count:
        count *= 2
    return count
