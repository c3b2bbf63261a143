"""Making the dataset: pairs and accepted negatives joined, validated, shuffled and tokenised by DuckDB and Arrow."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipeline import tables
from pipeline.artifact import SCRATCH, Artifact
from pipeline.clip import tokenizer, tokenizer_digest
from pipeline.errors import UserError
from pipeline.negative_types import ABSENCE, BESIDE, FOIL, NEGATIVE_TYPES, NEXT, PARAPHRASE, UNITS, types_in
from pipeline.schema import LEAKS, dataset_schema
from pipeline.stage import Inputs, Progress
from stages.assemble import card, decontaminate
from stages.assemble.checks import read_checks, validate
from stages.assemble.config import Config
from stages.assemble.duplicates import count_copies, group_images
from stages.assemble.tokens import Tokeniser

JOIN = """
create table dataset as
select pair_id, image_key, image_group, image_uri, caption, rewrites.* exclude (pair_id, have),
       group_split as split, []::varchar[] as leaks
from pairs join image_groups using (image_key) join group_splits using (image_group)
left join rewrites using (pair_id)
where coalesce(have, 0) >= ?
"""
"""The table `dataset` without tokens, no leak marked yet. `rewrites` holds the accepted texts of a pair."""

ONCE = """
qualify row_number() over (partition by image_group, said(caption) order by coalesce(have, 0) desc, pair_id) = 1
"""
"""Of captions that say the same on copies of an image: one, of those with the most negatives."""


def make(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Make the `dataset` artifact.

    Raises UserError when a validation query finds offending rows, or when no row is left for training.
    """
    pairs, negatives = inputs["pairs"], inputs["negatives"]
    tokeniser = Tokeniser(tokenizer(config.tokenizer))
    with (
        _spilling(config),
        tables.connect({"pairs": pairs.table_folder("pairs"), "negatives": negatives.table_folder("negatives")}) as sql,
    ):
        sql.execute("set memory_limit = $1", [config.memory])
        sql.execute("set temp_directory = $1", [str(out / SCRATCH)])
        sql.execute("set preserve_insertion_order = false")
        kinds = _kinds(sql)
        checks, schema = read_checks(kinds), dataset_schema(kinds)
        # What only needs the inputs is checked before the long work.
        offending = validate(sql, [check for check in checks if not check.of_dataset])
        with_copies = group_images(sql)
        _join(sql, config, kinds)
        leaks = _leaks(sql, config, pairs)
        splits = dict(sql.execute("select split::varchar, count(*) from dataset group by 1 order by 1").fetchall())
        if not splits.get("train"):
            raise UserError(
                "assemble",
                "no pair is left for training",
                "at least one",
                "lower assemble.min_negatives or see degla sql",
            )
        total = sum(splits.values())
        sql.execute("set variable seed = $1", [str(config.seed)])
        rows = sql.sql(
            """select dataset.* replace (coalesce(flagged.names, []) as leaks)
               from dataset left join flagged using (pair_id)
               order by md5(getvariable('seed') || ' ' || pair_id), pair_id"""
        ).to_arrow_reader(config.shard)
        # One shard is written while the next is tokenised.
        with ThreadPoolExecutor(1) as writer:
            writing: Future[None] | None = None
            for index, shard in enumerate(_rechunk(rows, config.shard)):
                path = tables.part(out, index)
                if not path.exists():
                    made = _with_tokens(shard, tokeniser, schema)
                    if writing is not None:
                        writing.result()
                    writing = writer.submit(tables.write, path, made, schema)
                progress("pairs", min((index + 1) * config.shard, total), total)
            if writing is not None:
                writing.result()
        tables.write(tables.part(out / "leaks", 0), sql.sql("from leaks").to_arrow_table(), LEAKS)
        copies = count_copies(sql) | {"pictures_with_copies": with_copies}
        sql.execute("drop table dataset")
        sql.read_parquet(str(out / "*.parquet")).create_view("dataset")
        offending |= validate(sql, [check for check in checks if check.of_dataset])
        facts = _facts(sql, types_in(schema.names))
    facts |= {
        "splits": splits,
        "checks": {check.what: offending[check.what] for check in checks},
        "leaks": leaks,
        "duplicates": copies,
        "tokenizer": tokenizer_digest(config.tokenizer),
        "image_root": pairs.meta["image_root"],
    }
    severities = {check.what: check.severity for check in checks}
    card.write(out, pairs, facts, config.model_dump(mode="json"), severities)
    return facts


@contextmanager
def _spilling(config: Config) -> Iterator[None]:
    """What DuckDB says of its memory and its disk, as a user's error."""
    try:
        yield
    except (duckdb.OutOfMemoryException, duckdb.IOException, duckdb.ParserException) as error:
        said = str(error).strip().splitlines()[0]
        raise UserError(
            "assemble",
            f"DuckDB with {config.memory} of memory: {said}",
            "memory as in 2GB, and room on the disk to spill to",
            "set assemble.memory, or free some disk",
        ) from None


def _kinds(sql: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    """What the dataset has a column of: the five types, and what else was made."""
    made = {kind for (kind,) in sql.execute("select distinct type::varchar from negatives").fetchall()}
    return (*types_in({*NEGATIVE_TYPES, *made}), *(kind for kind in (ABSENCE, UNITS) if kind in made))


def _join(sql: duckdb.DuckDBPyConnection, config: Config, kinds: tuple[str, ...]) -> None:
    """Create the table `dataset`, see JOIN."""
    # Copies of an image that ingest put on different sides all train: a held-out image has no copy in training.
    sql.execute(
        """create table group_splits as
           select image_group, if(count(distinct split) = 1, min(split::varchar), 'train') as group_split
           from pairs join image_groups using (image_key) group by image_group"""
    )
    line = f"string_split(max(text) filter (type = '{UNITS}'), '{NEXT}')"
    of_units = [
        f"list_transform({line}, lambda one: string_split(one, '{FOIL}')[{place}]) as {name}"
        for place, name in enumerate((UNITS, "unit_foils"), start=1)
    ]
    texts = ", ".join(
        text
        for kind in kinds
        for text in (of_units if kind == UNITS else [f"max(text) filter (type = '{kind}') as {kind}"])
    )
    chances = ", ".join(f"max(weight) filter (type = '{kind}')" for kind in types_in(kinds))
    sql.view("negatives").filter("status = 'accepted'").aggregate(
        f"""pair_id, {texts}, count(*) filter (type not in {BESIDE}) as have,
            list(text order by text) filter (type = '{PARAPHRASE}') as paraphrases,
            if(min(weight) < 1, [{chances}], null) as chances""",
        "pair_id",
    ).create_view("rewrites")
    sql.execute(JOIN + (ONCE if config.duplicates == "drop" else ""), [config.min_negatives])


def _leaks(sql: duckdb.DuckDBPyConnection, config: Config, pairs: Artifact) -> dict[str, dict[str, int]]:
    """Fill the tables `leaks` and `flagged` (pair_id, names), or drop the pairs; pairs per benchmark and rule."""
    built_in = pairs.path / "benchmarks"
    root = config.leaks_from or (built_in if built_in.is_dir() else None)
    names = list(config.leak_benchmarks) if root else []
    rows = decontaminate.benchmark_rows(root or built_in, names)
    decontaminate.find_leaks(sql, rows, decontaminate.read_vg_map(config.vg_map))
    sql.execute(
        """create table flagged as
           select pair_id, list_sort(list(distinct benchmark)) as names from leaks where ? group by pair_id""",
        [config.leaks != "keep"],
    )
    if config.leaks == "drop":
        sql.execute("delete from dataset where split = 'train' and pair_id in (select pair_id from flagged)")
    counts: dict[str, dict[str, int]] = {name: {} for name in names}
    for benchmark, rule, count in sql.execute(
        "select benchmark, rule, count(distinct pair_id) from leaks group by all order by all"
    ).fetchall():
        counts[benchmark][rule] = count
    return counts


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


def _with_tokens(table: pa.Table, tokeniser: Tokeniser, schema: pa.Schema) -> pa.Table:
    for column in [name.removesuffix("_tokens") for name in schema.names if name.endswith("_tokens")]:
        texts = table[column].combine_chunks()
        tokens = tokeniser.lists(texts) if pa.types.is_list(texts.type) else tokeniser.column(texts)
        table = table.append_column(f"{column}_tokens", tokens)
    return table.select(schema.names)


def _facts(sql: duckdb.DuckDBPyConnection, types: tuple[str, ...]) -> dict[str, Any]:
    """Figures of the written dataset: negatives per type and pair, lengths and vocabulary of captions."""
    lengths = sql.execute(
        """select round(avg(n), 2), median(n)::int, max(n), round(avg(tokens), 2), max(tokens)
           from (select len(string_split(caption, ' ')) as n, len(caption_tokens) as tokens from dataset)"""
    ).fetchall()[0]
    vocabulary = sql.execute(
        """select count(*), count(*) filter (times = 1), sum(times)::bigint
           from (select word, count(*) as times
                 from (select unnest(string_split(plain(caption), ' ')) as word from dataset) group by word)"""
    ).fetchall()[0]
    written = sql.view("dataset")
    have = " + ".join(f"({kind} is not null)::int" for kind in types)
    per_pair = written.project(f"({have})::varchar as have").aggregate("have, count(*)", "have").order("have")
    counted = written.aggregate(", ".join(f"count({kind})" for kind in types))
    return {
        "negatives": dict(zip(types, counted.fetchall()[0], strict=True)),
        "negatives_per_pair": dict(per_pair.fetchall()),
        "caption": dict(
            zip(("words_mean", "words_median", "words_max", "tokens_mean", "tokens_max"), lengths, strict=True)
        )
        | dict(zip(("vocabulary", "words_once", "words"), vocabulary, strict=True)),
    }
