from collections.abc import Iterator

import duckdb
import pytest

from stages.assemble.duplicates import MACROS, NEAR, count_copies, group_images


@pytest.fixture
def sql() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute(MACROS)
        yield connection


def groups(sql: duckdb.DuckDBPyConnection, images: dict[str, tuple[str, int]]) -> tuple[dict[str, str], int]:
    """image_key -> image_group, and how many images have a copy; `images` gives bytes and look by key."""
    sql.execute("create table pairs (image_key varchar, image_sha256 varchar, phash ubigint)")
    for key, facts in images.items():
        sql.execute("insert into pairs values (?, ?, ?)", [key, *facts])
    copies = group_images(sql)
    return dict(sql.sql("select image_key, image_group from image_groups").fetchall()), copies


def test_links_by_bytes_and_by_look_are_followed(sql: duckdb.DuckDBPyConnection) -> None:
    images = {
        "e": ("1", 0),
        "d": ("2", 0b111),
        "c": ("2", 1 << 60),
        "b": ("3", (1 << 60) | 0b11),
        "a": ("4", 255 << 20),
    }
    found, copies = groups(sql, images)
    assert found == {"e": "b", "d": "b", "c": "b", "b": "b", "a": "a"} and copies == 4


@pytest.mark.parametrize("bits", range(1, 6))
def test_near_means_few_bits_wherever_they_lie(sql: duckdb.DuckDBPyConnection, bits: int) -> None:
    spread = sum(1 << place for place in (5, 21, 37, 53, 63)[:bits])
    found, _ = groups(sql, {"a": ("1", 0), "b": ("2", spread)})
    assert (found["b"] == "a") == (bits <= NEAR)


def test_no_image_has_no_copy(sql: duckdb.DuckDBPyConnection) -> None:
    assert groups(sql, {}) == ({}, 0)


def test_captions_that_say_the_same_are_counted_by_image(sql: duckdb.DuckDBPyConnection) -> None:
    rows = [("A", "One thing."), ("A", "one, THING"), ("B", "One thing"), ("B", "?!"), ("B", "!?")]
    sql.execute("create table dataset (image_group varchar, caption varchar)")
    sql.executemany("insert into dataset values (?, ?)", rows)
    assert count_copies(sql) == {"repeated_captions": 1, "shared_captions": 3}
