"""Images that are copies of each other, by bytes or by look, and captions that say the same words."""

import duckdb
import numpy as np
import pyarrow as pa

NEAR = 3
"""Perceptual hashes that differ in at most this many of 64 bits count as one image; four bands find all of those."""

MACROS = rf"""
create or replace macro quarter(hash, band) as (hash >> (16 * band)) & 65535;
create or replace macro near(one, two) as bit_count(xor(one, two)) <= {NEAR};
create or replace macro plain(text) as trim(regexp_replace(lower(text), '[^\p{{L}}\p{{N}}]+', ' ', 'g'));
create or replace macro said(text) as coalesce(nullif(plain(text), ''), text);
"""
"""quarter: 16 bits of a perceptual hash. near: whether two perceptual hashes are of one image. plain: a text's words,
case and punctuation aside. said: the same, or the text itself where it has no word: texts that say the same are near
duplicates."""


def group_images(sql: duckdb.DuckDBPyConnection) -> int:
    """Create the table image_groups(image_key, image_group) from `pairs`.

    Two images are linked when their bytes are equal or their perceptual hashes are near; a group is everything that
    links reach, named by its smallest image_key. Gives the number of images that have a copy.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    sql.execute(MACROS)
    sql.execute(
        """
        create or replace table images as
            select row_number() over (order by image_key) - 1 as number, image_key,
                   any_value(image_sha256) as image_sha256, any_value(phash) as phash
            from pairs group by image_key;
        create or replace table links as
            with hashes as (select phash, min(number) as number from images group by phash),
                 banded as (select *, unnest([0, 1, 2, 3]) as band from hashes)
            select one.number as one, two.number as two from banded one join banded two
                on one.band = two.band and quarter(one.phash, one.band) = quarter(two.phash, two.band)
                and one.number < two.number and near(one.phash, two.phash)
            union
            select number, min(number) over (partition by image_sha256) from images
            union
            select number, min(number) over (partition by phash) from images
        """
    )
    links = sql.sql("from links").fetchnumpy()
    count = sql.sql("from images").shape[0]
    edges = coo_array((np.ones(len(links["one"]), bool), (links["one"], links["two"])), (count, count))
    _, label_N = connected_components(edges, directed=False)
    first_of = np.full(label_N.max(initial=-1) + 1, count)
    np.minimum.at(first_of, label_N, np.arange(count))
    sql.register("grouped", pa.table({"number": np.arange(count), "first": first_of[label_N]}))
    sql.execute(
        """create or replace table image_groups as
               select one.image_key, first.image_key as image_group
               from grouped join images as one using (number) join images as first on first.number = grouped.first;
           drop table links; drop table images"""
    )
    sql.unregister("grouped")
    return int(np.sum(np.bincount(label_N)[label_N] > 1)) if count else 0


def count_copies(sql: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Near-duplicate captions of the table `dataset`: `repeated_captions`, pairs whose words another pair of the same
    image (or a copy) already has; `shared_captions`, pairs whose words a pair of another image has too.
    """
    repeated, shared = sql.execute(
        """select coalesce(sum(again), 0)::bigint, coalesce(sum(n) filter (images > 1), 0)::bigint
           from (select sum(n) as n, sum(n - 1) as again, count(*) as images
                 from (select said(caption) as words, count(*) as n from dataset group by words, image_group)
                 group by words)"""
    ).fetchall()[0]
    return {"repeated_captions": repeated, "shared_captions": shared}
