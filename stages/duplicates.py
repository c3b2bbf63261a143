"""Pictures that are copies of each other, by bytes or by look, and captions repeated on them."""

from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa

NEAR = 3
"""Perceptual hashes that differ in at most this many of 64 bits count as one picture; four bands find all of those."""

MACROS = "create or replace macro quarter(hash, band) as (hash >> (16 * band)) & 65535;"


def group_pictures(sql: duckdb.DuckDBPyConnection) -> int:
    """Create the table picture_groups(image_key, image_group) from `pairs`.

    Two pictures are linked when their bytes are equal or their perceptual hashes are near; a group is everything that
    links reach, named by its smallest image_key. Gives the number of pictures that have a copy.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    sql.execute(MACROS)
    sql.execute(
        f"""
        create or replace table pictures as
            select row_number() over (order by image_key) - 1 as number, image_key,
                   any_value(image_sha256) as image_sha256, any_value(phash) as phash
            from pairs group by image_key;
        create or replace table links as
            with hashes as (select phash, min(number) as number from pictures group by phash),
                 banded as (select *, unnest([0, 1, 2, 3]) as band from hashes)
            select one.number as one, two.number as two from banded one join banded two
                on one.band = two.band and quarter(one.phash, one.band) = quarter(two.phash, two.band)
                and one.number < two.number and bit_count(xor(one.phash, two.phash)) <= {NEAR}
            union
            select number, min(number) over (partition by image_sha256) from pictures
            union
            select number, min(number) over (partition by phash) from pictures
        """  # noqa: S608 - a number of our own
    )
    links = sql.sql("from links").fetchnumpy()
    keys: Sequence[str] = sql.sql("select image_key from pictures order by number").to_arrow_table()[0].to_pylist()
    edges = coo_array((np.ones(len(links["one"]), bool), (links["one"], links["two"])), (len(keys), len(keys)))
    _, label_N = connected_components(edges, directed=False)
    first_of = np.full(label_N.max(initial=-1) + 1, len(keys))
    np.minimum.at(first_of, label_N, np.arange(len(keys)))
    groups = pa.table({"image_key": keys, "image_group": [keys[first_of[label]] for label in label_N]})
    sql.register("grouped", groups)
    sql.execute("create or replace table picture_groups as from grouped; drop table links; drop table pictures")
    sql.unregister("grouped")
    return int(np.sum(np.bincount(label_N)[label_N] > 1)) if len(keys) else 0
