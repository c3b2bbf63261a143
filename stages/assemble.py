"""assemble: pairs and accepted negatives become the training set, one row per pair, validated, with tokens.

Writes dataset (DATASET) and leaks (LEAKS). Rows are ordered by pair_id, which is a hash: a fixed shuffle.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from pydantic import Field

from pipeline import tables
from pipeline.config import Config as BaseConfig
from pipeline.config import placement
from pipeline.errors import UserError
from pipeline.schema import DATASET, LEAKS, NEGATIVE_TYPES
from pipeline.stage import Inputs, Progress, Stage

Tokenize = Callable[[list[str]], list[list[int]]]


class Config(BaseConfig):
    """What enters the training set."""

    tokenizer: str = Field("ViT-B-32", description="open_clip model, or local folder, whose tokenizer is used")
    min_negatives: int = Field(0, ge=0, le=5, description="pairs with fewer accepted negatives are left out")
    shard: int = placement(65_536, ge=1, description="rows per part")
    memory: str = placement("2GB", description="memory DuckDB may use before it spills to disk")


def outside(config: Config) -> dict[str, str]:
    """Digest of the tokenizer."""
    from pipeline.clip import tokenizer_digest

    return {"tokenizer": tokenizer_digest(config.tokenizer)}


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
        _validate(sql)
        total = _assemble(sql, config.min_negatives)
        rows = sql.execute("from assembled order by pair_id").to_arrow_reader(config.shard)
        for index, batch in enumerate(_rechunk(rows, config.shard)):
            path = tables.part(out, index)
            if not path.exists():
                tables.write(path, _with_tokens(batch, tokenize), DATASET)
            progress("pairs", min((index + 1) * config.shard, total), total)
        facts = _facts(sql)
    tables.write(tables.part(out / "leaks", 0), [], LEAKS)
    if not facts["splits"].get("train"):
        raise UserError(
            "assemble", "no pair is left for training", "at least one", "lower assemble.min_negatives or see degla sql"
        )
    return facts | {"tokenizer": tokenizer_digest(config.tokenizer), "image_root": pairs.meta["image_root"]}


def _validate(sql: duckdb.DuckDBPyConnection) -> None:
    """Contracts between the tables, as queries that return offending rows."""
    checks = {
        "pair_id occurs twice in pairs": "select pair_id from pairs group by 1 having count(*) > 1",
        "negative of an unknown pair": "select pair_id from negatives anti join pairs using (pair_id)",
        "two accepted negatives of one type": """select pair_id from negatives where status = 'accepted'
                                                 group by pair_id, type having count(*) > 1""",
        "accepted negative without text": """select pair_id from negatives
                                             where status = 'accepted' and coalesce(trim(text), '') = ''""",
        "accepted negative equal to its caption": """select pair_id from negatives join pairs using (pair_id)
                                             where status = 'accepted' and lower(text) = lower(caption)""",
    }
    for what, query in checks.items():
        offender = sql.execute(f"{query} order by all limit 1").fetchone()
        if offender:
            raise UserError("assemble", f"{what}: row {offender[0]}", "none", "degla run <run> --only generate --force")


def _assemble(sql: duckdb.DuckDBPyConnection, min_negatives: int) -> int:
    columns = ", ".join(f"max(text) filter (type = '{kind}') as {kind}" for kind in NEGATIVE_TYPES)
    sql.execute(
        f"""create table assembled as
            select pair_id, image_key, image_uri, caption, {", ".join(NEGATIVE_TYPES)},
                   null::varchar[] as paraphrases, split, []::varchar[] as leaks
            from pairs left join (select pair_id, {columns}, count(*) as have
                                  from negatives where status = 'accepted' group by pair_id) using (pair_id)
            where coalesce(have, 0) >= ?""",  # noqa: S608 - column names are our own constants
        [min_negatives],
    )
    counted = sql.execute("select count(*) from assembled").fetchone()
    assert counted is not None
    return int(counted[0])


def _rechunk(reader: pa.RecordBatchReader, size: int) -> Any:
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
        "splits": dict(sql.execute("select split::varchar, count(*) from assembled group by 1 order by 1").fetchall()),
        "negatives": {
            kind: sql.execute(f"select count({kind}) from assembled").fetchall()[0][0]  # noqa: S608
            for kind in NEGATIVE_TYPES
        },
        "negatives_per_pair": dict(
            sql.execute(f"select ({have})::varchar, count(*) from assembled group by 1 order by 1").fetchall()  # noqa: S608
        ),
        "caption_words_mean": sql.execute(
            "select round(avg(len(string_split(caption, ' '))), 2) from assembled"
        ).fetchall()[0][0],
    }


STAGE = Stage(
    name="assemble", makes="dataset", needs=("pairs", "negatives"), version=1, config=Config, outside=outside, run=run
)
