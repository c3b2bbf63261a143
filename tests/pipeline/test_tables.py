from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import tables
from pipeline.errors import UserError
from pipeline.schema import TABLES


def rows(count: int) -> list[dict[str, str]]:
    return [
        {"origin": f"a.csv:{i}", "image_uri": "a.png", "caption": "x", "reason": "duplicate", "detail": str(i)}
        for i in range(count)
    ]


def test_parts_read_back_in_order_and_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    schema = TABLES["pairs_rejected"]
    tables.write(tables.part(tmp_path, 1), rows(3)[2:], schema)
    tables.write(tables.part(tmp_path, 0), rows(2), schema)
    assert tables.read(tmp_path).to_pylist() == rows(3)
    assert tables.count(tmp_path) == 3
    assert [batch.num_rows for batch in tables.batches(tmp_path, 2)] == [2, 1]
    before = tables.part(tmp_path, 0).read_bytes()
    tables.write(tables.part(tmp_path, 0), rows(2), schema)
    assert tables.part(tmp_path, 0).read_bytes() == before


def test_a_part_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        tables.write(tables.part(tmp_path, 0), [{"origin": 3}], TABLES["pairs_rejected"])
    assert tables.files(tmp_path) == []


def test_views_and_empty_folders(tmp_path: Path) -> None:
    tables.write(tables.part(tmp_path, 0), rows(4), TABLES["pairs_rejected"])
    with tables.connect({"bad": tmp_path}) as sql:
        assert sql.sql("select reason, count(*) from bad group by all").fetchall() == [("duplicate", 4)]
    with pytest.raises(UserError, match="no Parquet file"):
        tables.read(tmp_path / "nowhere")


@pytest.mark.parametrize("name", sorted(TABLES))
def test_sql_sees_enums_and_which_columns_are_never_null(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "it's here"
    tables.write(tables.part(folder, 0), [], TABLES[name])
    with tables.database({name: folder}) as sql:
        never_null = dict(sql.sql("select column_name, never_null from columns").fetchall())
        found = {column: kind for column, kind, *_ in sql.sql(f"describe {name}").fetchall()}
    assert never_null == {field.name: not field.nullable for field in TABLES[name]}
    enums = {column: f"ENUM{values}" for column, values in tables.ENUMS.get(name, {}).items()}
    assert {column: kind for column, kind in found.items() if kind.startswith("ENUM")} == enums
    assert all(pa.types.is_dictionary(TABLES[name].field(column).type) for column in enums)


def test_a_null_where_none_may_be_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(pa.ArrowInvalid, match="non-nullable"):
        tables.write(tables.part(tmp_path, 0), [*rows(1), {"origin": None}], TABLES["pairs_rejected"])
    assert tables.files(tmp_path) == []


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_column_is_described(name: str) -> None:
    for field in TABLES[name]:
        assert len(field.metadata[b"description"]) > 3, field.name
