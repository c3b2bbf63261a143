"""assemble: pairs and accepted negatives become the training set, one row per pair, validated, with tokens.

Writes dataset (DATASET) and leaks (LEAKS). Rows are ordered by pair_id, which is a hash: a fixed shuffle.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import duckdb
import pyarrow as pa
from pydantic import Field

from pipeline import tables
from pipeline.artifact import Artifact, listing_digest, path_digest
from pipeline.config import Config as BaseConfig
from pipeline.config import placement
from pipeline.errors import UserError
from pipeline.schema import DATASET, LEAKS, NEGATIVE_TYPES
from pipeline.stage import Inputs, Progress, Stage
from stages.duplicates import group_pictures

CHECKS = Path(__file__).resolve().parent.parent / "data" / "checks.sql"
Tokenize = Callable[[list[str]], list[list[int]]]


class Config(BaseConfig):
    """What enters the training set."""

    tokenizer: str = Field("ViT-B-32", description="open_clip model, or local folder, whose tokenizer is used")
    min_negatives: int = Field(0, ge=0, le=5, description="pairs with fewer accepted negatives are left out")
    duplicates: Literal["keep", "drop"] = Field(
        "keep", description="a caption repeated on copies of one picture: kept, or kept once"
    )
    leaks: Literal["off", "flag", "drop"] = Field(
        "flag", description="pairs that overlap with a benchmark: not looked for, flagged, or left out of training"
    )
    leaks_from: Path | None = Field(
        None, description="folder of benchmarks to look for; null = the built-in world's own, where there are any"
    )
    leak_benchmarks: tuple[str, ...] = Field(("sugarcrepe", "valse", "aro"), description="which of them")
    vg_map: Path | None = Field(None, description="Visual Genome's image_data.json, to know its COCO pictures")
    shard: int = placement(65_536, ge=1, description="rows per part")
    memory: str = placement("2GB", description="memory DuckDB may use before it spills to disk")


def outside(config: Config) -> dict[str, str]:
    """Digests of the tokenizer and of the checks."""
    from pipeline.clip import tokenizer_digest

    digests = {"tokenizer": tokenizer_digest(config.tokenizer), "checks": path_digest(CHECKS)}
    for name, path in (("leaks_from", config.leaks_from), ("vg_map", config.vg_map)):
        if path is not None and config.leaks != "off":
            if not path.exists():
                raise UserError("assemble", f"{path} is not there", "an existing path", f"set assemble.{name}")
            digests[name] = listing_digest(path)
    return digests


def run(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Make the `dataset` artifact.

    Raises UserError when a validation query finds offending rows, or when no row is left for training.
    """
    from pipeline.clip import tokenizer, tokenizer_digest

    pairs, negatives = inputs["pairs"], inputs["negatives"]
    tokenize = tokenizer(config.tokenizer)
    with tables.connect({"pairs": pairs.table("pairs"), "negatives": negatives.table("negatives")}) as sql:
        sql.execute("set memory_limit = $1", [config.memory])
        sql.execute("set temp_directory = $1", [str(out / ".work")])
        copies = group_pictures(sql)
        _assemble(sql, config.min_negatives, config.duplicates)
        leaks = _leaks(sql, config, pairs)
        checks = validate(sql, read_checks())
        total = _one(sql, "select count(*) from dataset")
        rows = sql.sql("from dataset order by pair_id").to_arrow_reader(config.shard)
        for index, batch in enumerate(_rechunk(rows, config.shard)):
            path = tables.part(out, index)
            if not path.exists():
                tables.write(path, _with_tokens(batch, tokenize), DATASET)
            progress("pairs", min((index + 1) * config.shard, total), total)
        facts = _facts(sql)
        tables.write(tables.part(out / "leaks", 0), sql.sql("from leaks").to_arrow_table(), LEAKS)
    if not facts["splits"].get("train"):
        raise UserError(
            "assemble", "no pair is left for training", "at least one", "lower assemble.min_negatives or see degla sql"
        )
    return facts | {
        "checks": checks,
        "leaks": leaks,
        "pictures_with_copies": copies,
        "tokenizer": tokenizer_digest(config.tokenizer),
        "image_root": pairs.meta["image_root"],
    }


class Check(NamedTuple):
    """One named query of data/checks.sql; it returns the rows that break the rule, their id first."""

    severity: str
    what: str
    query: str


def read_checks(path: Path = CHECKS) -> list[Check]:
    """The checks of a file: each a `-- error: ...` or `-- warning: ...` line with the query below it."""
    found = re.findall(r"^-- (error|warning): (.+)\n((?:(?!--).*\n?)+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return [Check(severity, what.strip(), query.strip().rstrip(";")) for severity, what, query in found]


def validate(sql: duckdb.DuckDBPyConnection, checks: list[Check]) -> dict[str, int]:
    """Offending rows per check, over the views pairs, negatives and dataset. Raises UserError on the first error."""
    counts = {}
    for severity, what, query in checks:
        found = sql.execute(f"select count(*), min(id::varchar) from ({query}) as offending(id)").fetchall()[0]  # noqa: S608
        counts[what] = found[0]
        if found[0] and severity == "error":
            raise UserError(
                "assemble", f"{what}: {found[0]} rows, e.g. {found[1]}", "none", "degla run RUN --from generate --force"
            )
    return counts


def _assemble(sql: duckdb.DuckDBPyConnection, min_negatives: int, duplicates: str) -> None:
    # Copies of a picture that ingest put on different sides all train: a held-out picture has no copy in training.
    sql.execute(
        """create table group_splits as
           select image_group, if(count(distinct split) = 1, min(split::varchar), 'train') as group_split
           from pairs join picture_groups using (image_key) group by image_group"""
    )
    columns = ", ".join(f"max(text) filter (type = '{kind}') as {kind}" for kind in NEGATIVE_TYPES)
    sql.execute(
        f"""create table dataset as
            select pair_id, image_key, image_group, image_uri, caption, {", ".join(NEGATIVE_TYPES)},
                   null::varchar[] as paraphrases, group_split as split, []::varchar[] as leaks
            from pairs join picture_groups using (image_key) join group_splits using (image_group)
            left join (select pair_id, {columns}, count(*) as have
                       from negatives where status = 'accepted' group by pair_id) using (pair_id)
            where coalesce(have, 0) >= ?""",  # noqa: S608 - column names are our own constants
        [min_negatives],
    )
    if duplicates == "drop":
        sql.execute(
            """delete from dataset where pair_id not in
               (select min(pair_id) from dataset group by image_group, lower(caption))"""
        )


def _leaks(sql: duckdb.DuckDBPyConnection, config: Config, pairs: Artifact) -> dict[str, dict[str, int]]:
    """Fill the table `leaks`, flag or drop the pairs in it; pairs per benchmark and rule."""
    from stages import decontaminate

    built_in = pairs.path / "benchmarks"
    root = config.leaks_from or (built_in if built_in.is_dir() else None)
    names = list(config.leak_benchmarks) if root and config.leaks != "off" else []
    rows = decontaminate.benchmark_rows(root or built_in, names)
    decontaminate.find_leaks(sql, rows, decontaminate.read_vg_map(config.vg_map))
    sql.execute(
        """update dataset set leaks = found.names
           from (select pair_id, list_sort(list(distinct benchmark)) as names from leaks group by 1) as found
           where found.pair_id = dataset.pair_id"""
    )
    if config.leaks == "drop":
        sql.execute("delete from dataset where split = 'train' and len(leaks) > 0")
    counts: dict[str, dict[str, int]] = {}
    for benchmark, rule, count in sql.execute(
        "select benchmark, rule, count(distinct pair_id) from leaks group by all order by all"
    ).fetchall():
        counts.setdefault(benchmark, {})[rule] = count
    return counts


def _one(sql: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(sql.execute(query).fetchall()[0][0])


def _rechunk(reader: pa.RecordBatchReader, size: int) -> Iterator[pa.Table]:
    """Tables of exactly `size` rows (the last may be shorter), whatever batch sizes the reader gives."""
    waiting: list[pa.RecordBatch] = []
    have = 0
    for batch in reader:
        while have + len(batch) >= size:
            yield pa.Table.from_batches([*waiting, batch.slice(0, size - have)])
            batch, waiting, have = batch.slice(size - have), [], 0
        if len(batch):
            waiting.append(batch)
            have += len(batch)
    if waiting:
        yield pa.Table.from_batches(waiting)


def _with_tokens(table: pa.Table, tokenize: Tokenize) -> pa.Table:
    for column in ("caption", *NEGATIVE_TYPES):
        texts = table[column].to_pylist()
        tokens = iter(tokenize([text for text in texts if text is not None]))
        values = pa.array(
            (None if text is None else next(tokens) for text in texts), DATASET.field(f"{column}_tokens").type
        )
        table = table.append_column(f"{column}_tokens", values)
    return table.select(DATASET.names)


def _facts(sql: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    have = " + ".join(f"({kind} is not null)::int" for kind in NEGATIVE_TYPES)
    return {
        "splits": dict(sql.execute("select split::varchar, count(*) from dataset group by 1 order by 1").fetchall()),
        "negatives": {
            kind: sql.execute(f"select count({kind}) from dataset").fetchall()[0][0]  # noqa: S608
            for kind in NEGATIVE_TYPES
        },
        "negatives_per_pair": dict(
            sql.execute(f"select ({have})::varchar, count(*) from dataset group by 1 order by 1").fetchall()  # noqa: S608
        ),
        "caption_words_mean": sql.execute(
            "select round(avg(len(string_split(caption, ' '))), 2) from dataset"
        ).fetchall()[0][0],
    }


STAGE = Stage(
    name="assemble", makes="dataset", needs=("pairs", "negatives"), version=1, config=Config, outside=outside, run=run
)
