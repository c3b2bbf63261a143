"""The data card of a dataset artifact, Markdown and HTML: what is in it, how clean it is, samples, how to load it."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import duckdb

from pipeline import tables
from pipeline.artifact import Artifact
from pipeline.errors import UserError
from pipeline.negative_types import types_in
from stages.pages import CARDS, changed_words, render, thumbnail

SAMPLES = 12
"""Pairs shown, one per image: of those with the most negatives the first stored, which is a random draw."""

THUMBNAIL = 192
"""Longest side of an image shown, pixels."""

BARS = 24
"""Bars of the caption lengths at most; longer captions share the last one."""

LOAD = {
    "duckdb": """import duckdb
rows = duckdb.sql("select caption, swap_nouns from 'part-*.parquet' where split = 'train'")
rows.show()""",
    "pyarrow": """from glob import glob
from pyarrow import dataset
table = dataset.dataset(sorted(glob("part-*.parquet"))).to_table(filter=dataset.field("split") == "train")""",
    "pandas": """from glob import glob
import pandas
frame = pandas.concat(map(pandas.read_parquet, sorted(glob("part-*.parquet"))))""",
}
"""Three lines each, to be run in the folder of the card."""


def write(
    out: Path, pairs: Artifact, facts: dict[str, Any], config: dict[str, Any], severities: dict[str, str]
) -> None:
    """Write card.md and card.html beside a dataset's parts.

    Args:
        out: folder of the dataset's parts and leaks.
        pairs: the pairs artifact, for its images and rejected rows.
        facts: what `assemble` records of the dataset.
        config: the stage's settings.
        severities: check -> error or warning.
    """
    told = (
        facts
        | _tables(out, pairs, facts["negatives"])
        | {
            "types": tuple(facts["negatives"]),
            "config": config,
            "severities": severities,
            "total": sum(facts["splits"].values()),
            "load": LOAD,
            "longest_bar": BARS,
        }
    )
    pictures = _pictures(pairs, told["samples"])
    for page in ("card.md", "card.html"):
        text = render(f"dataset.{page.partition('.')[2]}", told, CARDS, pictures=pictures)
        tables.write_text(out / page, text)


def _tables(out: Path, pairs: Artifact, types: Collection[str]) -> dict[str, Any]:
    """Figures the card shows beside those of the manifest, and the samples."""
    views = {"pairs": pairs.table_folder("pairs"), "dataset": out, "leaks": out / "leaks"}
    if tables.files(pairs.table_folder("pairs_rejected")):
        views["refused"] = pairs.table_folder("pairs_rejected")
    counts = ", ".join(f"count({kind}) as {kind}" for kind in types)
    have = " + ".join(f"({kind} is not null)::int" for kind in types)

    def rows(found: duckdb.DuckDBPyRelation) -> list[dict[str, Any]]:
        return list(found.to_arrow_table().to_pylist())

    with tables.connect(views) as sql:
        written, first = sql.view("dataset"), sql.read_parquet(str(tables.files(out)[0]))
        words = written.project(f"least(len(string_split(caption, ' ')), {BARS}) as words")
        by_split = written.aggregate(
            f"""split, count(*) as pairs, count(distinct image_key) as pictures, {counts},
                count(*) filter (len(leaks) > 0) as leaking""",
            "split",
        )
        stored = first.filter("split = 'train'").project(f"*, {have} as have, row_number() over () as place")
        stored.create_view("stored")
        return {
            "by_split": rows(by_split.order("list_position(['train', 'val', 'test'], split)")),
            "sources": rows(sql.sql("select source, count(*) as pairs from pairs group by source order by pairs desc")),
            "lengths": rows(words.aggregate("words, count(*) as captions", "words").order("words")),
            "refused": rows(
                sql.sql(
                    """select reason, count(*) as rows, min(origin || ': ' || detail) as example
                       from refused group by reason order by rows desc"""
                )
            )
            if "refused" in views
            else [],
            "overlaps": rows(
                sql.sql(
                    """select benchmark, rule, count(distinct pair_id) as pairs,
                              count(distinct (subset, row_id)) as rows
                       from leaks group by all order by all"""
                )
            ),
            "samples": [
                _sample(row)
                for row in rows(
                    sql.sql(
                        """from (from stored
                                 qualify row_number() over (partition by image_group order by have desc, place) = 1)
                           order by have desc, place"""
                    ).limit(SAMPLES)
                )
            ],
        }


def _sample(row: dict[str, Any]) -> dict[str, Any]:
    negatives = [
        {"type": kind, "words": changed_words(row["caption"], row[kind])}
        for kind in types_in(row)
        if row[kind] is not None
    ]
    return {name: row[name] for name in ("pair_id", "image_key", "image_uri", "caption", "leaks")} | {
        "negatives": negatives
    }


def _pictures(pairs: Artifact, samples: list[dict[str, Any]]) -> dict[str, str]:
    """Data URI by pair id of those samples whose image can still be read; a card is no reason to fail."""
    found = {}
    for sample in samples:
        try:
            picture = pairs.path / pairs.meta["image_root"] / sample["image_uri"]
            found[sample["pair_id"]] = thumbnail(picture, THUMBNAIL)
        except UserError:
            continue
    return found
