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
def test_every_column_is_described(name: str) -> None:
    for field in TABLES[name]:
        assert len(field.metadata[b"description"]) > 3, field.name
