"""Which training pairs overlap with a benchmark: by image number, by caption, by look, by a foil's wording.

Rules, as they appear in the `leaks` table:
    image_id         the same COCO image, whatever the year in its name (2014 and 2017 share numbers), or the same
                     Visual Genome image; both meet through the VG -> COCO map when the user supplies one
    caption_hash     the caption equals one of the row's texts, case and punctuation aside
    perceptual_hash  the images' hashes are near (see duplicates.py)
    foil_ngram       an accepted negative shares `NGRAM` words in a row with one of the row's wrong texts
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.negative_types import types_in
from stages.assemble.duplicates import MACROS as WORDS_AND_LOOKS
from stages.benchmarks import loaders as benchmarks
from stages.images import examine

NGRAM = 8

MACROS = rf"""
create or replace macro file_number(name) as try_cast(
    regexp_extract(name, '(?:^|[/:])(?:COCO_[a-z]+\d{{4}}_)?(\d{{12}})(?:\.\w+)?$', 1) as bigint);
create or replace macro vg_number(name) as try_cast(regexp_extract(name, '^(?:v7w_)?(\d{{1,7}})\.\w+$', 1) as bigint);
create or replace macro vg_file(uri) as regexp_extract(uri, '(?:^|/)VG_100K(?:_2)?/(\d+\.\w+)$', 1);
create or replace macro ngrams(words) as list_transform(
    range(0, greatest(1, len(words) - {NGRAM - 1})), lambda i: array_to_string(words[i + 1 : i + {NGRAM}], ' '));
"""


def benchmark_rows(root: Path, names: list[str]) -> pa.Table:
    """All rows of the benchmarks below a root: benchmark, subset, row_id, file (of the image), path, texts.

    The first text is the right one where the benchmark is pairwise. Zero-shot sets have images and no texts. Raises
    UserError as the benchmarks' loaders do.
    """

    def rows() -> Iterator[dict[str, object]]:
        for name in names:
            if not (root / name).is_dir():
                raise UserError(
                    "assemble", f"there is no {name} in {root}", "the benchmark's own files", "mend assemble.leaks_from"
                )
            for subset in benchmarks.folder_readers()[name](root / name):
                for row in subset.rows:
                    path = row.image.path if row.image else None
                    numbered = path and subset.rule != "classify"  # those sets number their images for themselves
                    yield {
                        "benchmark": name,
                        "subset": subset.name,
                        "row_id": row.row_id,
                        "file": Path(row.image_key).name if numbered else None,
                        "path": str(path) if path else None,
                        "texts": list(row.texts),
                    }

    text = pa.string()
    fields = [(name, text) for name in ("benchmark", "subset", "row_id", "file", "path")]
    return pa.Table.from_pylist(list(rows()), schema=pa.schema([*fields, ("texts", pa.list_(text))]))


def read_vg_map(path: Path | None) -> pa.Table:
    """Visual Genome number -> COCO number, from image_data.json of Visual Genome ([{image_id, coco_id}, ...])."""
    schema = pa.schema([("vg", pa.int64()), ("coco", pa.int64())])
    if path is None:
        return schema.empty_table()
    try:
        found = [row for row in json.loads(path.read_bytes()) if row["coco_id"] is not None]
        return pa.Table.from_pylist([{"vg": row["image_id"], "coco": row["coco_id"]} for row in found], schema=schema)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            "assemble",
            f"{path} is no VG to COCO map ({error!r})",
            "a list of {image_id, coco_id}",
            "set assemble.vg_map",
        ) from None


def find_leaks(sql: duckdb.DuckDBPyConnection, rows: pa.Table, vg_map: pa.Table) -> None:
    """Create the table `leaks` beside the tables `pairs` and `dataset` of this connection."""
    sql.execute(WORDS_AND_LOOKS + MACROS)
    if not len(rows):
        sql.execute(
            "create table leaks (pair_id varchar, benchmark varchar, subset varchar, row_id varchar, rule varchar)"
        )
        return
    sql.register("benchmark_rows", rows)
    sql.register("vg_map", vg_map)
    sql.register("looks", _looks(rows))
    sql.register("suspects", _suspects(sql))
    sql.execute(
        """
        create table leaks as
        with train as (
            select pair_id, dataset.caption, phash,
                   case when image_key like 'coco:%' then file_number(image_key)
                        when contains(image_uri, 'COCO_') then file_number(image_uri) end as coco_number,
                   vg_number(vg_file(image_uri)) as vg
            from dataset join (select pair_id, phash from pairs) using (pair_id)
        ), numbered as (
            select pair_id, vg, coalesce(coco_number, coco) as coco from train left join vg_map using (vg)
        ), rows as (
            select benchmark_rows.*, vg_number(file) as vg, coalesce(file_number(file), coco) as coco
            from benchmark_rows left join vg_map on vg = vg_number(file)
        ), texts as (
            select benchmark, subset, row_id, plain(unnest(texts)) as text from rows
        ), ngrams as (
            select pair_id, unnest(ngrams(string_split(plain(text), ' '))) as words
            from suspects
        ), foils as (
            select distinct benchmark, subset, row_id, unnest(ngrams(string_split(plain(text), ' '))) as words
            from (select benchmark, subset, row_id, unnest(texts[2:]) as text from rows)
        ), look as (
            select pair_id, phash, unnest([0, 1, 2, 3]) as band from train
        ), looks_banded as (
            select *, unnest([0, 1, 2, 3]) as band from looks
        )
        select pair_id, benchmark, subset, row_id, 'image_id' as rule from numbered join rows using (coco)
        union
        select pair_id, benchmark, subset, row_id, 'image_id' from numbered join rows using (vg)
        union
        select pair_id, benchmark, subset, row_id, 'caption_hash' from train join texts on plain(caption) = text
        union
        select pair_id, benchmark, subset, row_id, 'perceptual_hash' from look join looks_banded as other
            on look.band = other.band and quarter(look.phash, look.band) = quarter(other.phash, other.band)
            and near(look.phash, other.phash)
        union
        select pair_id, benchmark, subset, row_id, 'foil_ngram' from ngrams join foils using (words)
        order by all
        """
    )


def _suspects(sql: duckdb.DuckDBPyConnection) -> pa.Table:
    """pair_id and text of the negatives of `dataset` that may share an n-gram with a foil: all that do, few others."""
    hashes = _Hashes()
    foils = sql.sql("select plain(text) as words from (select unnest(texts[2:]) as text from benchmark_rows)")
    foil_G = np.unique(hashes.of(foils.to_arrow_table()["words"].combine_chunks())[0])
    found = []
    for kind in types_in(sql.table("dataset").columns) if len(foil_G) else ():
        texts = (
            sql.table("dataset")
            .filter(f"{kind} is not null")
            .project(f"pair_id, {kind} as text, plain({kind}) as words")
        )
        for batch in texts.to_arrow_reader(100_000):
            hash_G, text_G = hashes.of(batch["words"])
            near_G = foil_G[np.searchsorted(foil_G, hash_G).clip(max=len(foil_G) - 1)] == hash_G
            found.append(batch.select(["pair_id", "text"]).take(pa.array(np.unique(text_G[near_G]))))
    return pa.Table.from_batches(found, pa.schema([("pair_id", pa.string()), ("text", pa.string())]))


class _Hashes:
    """Numbers of n-grams, equal for equal words in a row. Shapes: N texts, W their words in a row, G their n-grams."""

    def __init__(self) -> None:
        self._words: dict[str, int] = {}
        self._factors = np.random.default_rng(0).integers(1, 2**63, NGRAM, np.uint64) * np.uint64(2) + np.uint64(1)

    def of(self, texts: pa.Array) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The n-grams of each text (of one with fewer words, all of them as one), and whose each is."""
        lists = pc.split_pattern(texts, " ")
        coded = lists.flatten().dictionary_encode()
        words = coded.dictionary.to_pylist()
        if len(self._words) > 2**20:
            self._words = {}
        for word in words:
            if word not in self._words:
                self._words[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        word_W = np.array([self._words[word] for word in words], np.uint64)[np.asarray(coded.indices)]
        length_N = np.asarray(pc.list_value_length(lists)).astype(np.int64)
        first_N = np.cumsum(length_N) - length_N
        count_N = np.maximum(length_N - (NGRAM - 1), 1)
        text_G = np.repeat(np.arange(len(length_N)), count_N)
        begin_G = np.arange(len(text_G)) - np.repeat(np.cumsum(count_N) - count_N - first_N, count_N)
        end_G = (first_N + length_N)[text_G]
        hash_G = np.zeros(len(text_G), np.uint64)
        for place, factor in enumerate(self._factors):
            inside_G = begin_G + place < end_G
            hash_G[inside_G] += word_W[begin_G[inside_G] + place] * factor
        return hash_G, text_G


def _looks(rows: pa.Table) -> pa.Table:
    """Perceptual hashes of those benchmark images that are on disk."""
    fields = [(name, pa.string()) for name in ("benchmark", "subset", "row_id")]
    hashes: dict[str, int | None] = {}
    for path in rows["path"].unique().drop_null().to_pylist():
        facts = examine(Path(path).parent, Path(path).name) if Path(path).is_file() else None
        hashes[path] = facts.phash if facts and facts.reason is None else None
    found = [row | {"phash": hashes[row["path"]]} for row in rows.to_pylist() if hashes.get(row["path"]) is not None]
    return pa.Table.from_pylist(
        [{name: row[name] for name in ("benchmark", "subset", "row_id", "phash")} for row in found],
        schema=pa.schema([*fields, ("phash", pa.uint64())]),
    )
