"""Tables from and for people: what is written comes back, and what cannot be read is said in one line."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from stages.generate import sheets

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".parquet"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(st.tuples(TEXTS, TEXTS | st.none()), min_size=1, max_size=5))
def test_what_is_written_comes_back(tmp_path: Path, suffix: str, rows: list[tuple[str, str | None]]) -> None:
    table = pa.table({"a": pa.array([row[0] for row in rows]), "b": pa.array([row[1] for row in rows], pa.string())})
    path = tmp_path / f"sheet{suffix}"
    sheets.write(path, table, "check")
    found = sheets.read(path, "check", ["a", "b"]).to_pydict()
    assert found["a"] == table["a"].to_pylist()
    assert found["b"] == [text if suffix == ".parquet" else text or "" for text in table["b"].to_pylist()]


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
def test_the_header_tells_the_separator_and_a_spreadsheet_s_byte_order_mark_is_no_letter(
    tmp_path: Path, separator: str
) -> None:
    path = tmp_path / "sheet.csv"
    path.write_text(f'a{separator}b\r\n"x{separator}y"{separator}z\r\n', encoding="utf-8-sig", newline="")
    assert sheets.read(path, "check", ["a"]).to_pylist() == [{"a": f"x{separator}y", "b": "z"}]


def test_lists_of_texts_are_joined_in_text(tmp_path: Path) -> None:
    path = tmp_path / "sheet.tsv"
    sheets.write(path, pa.table({"a": [["x", "y"], []]}), "check")
    assert sheets.read(path, "check", ["a"])["a"].to_pylist() == ["x | y", ""]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "check: there is no file "),
        (b"", "check: sheet.tsv has no row; expected a TSV, CSV or Parquet file with a, b; "),
        (b"a\tb\n", "check: sheet.tsv has no row; "),
        (b"a\tc\n1\t2\n", "check: sheet.tsv has no column 'b', found a, c; "),
        (b"a\tb\tb\n1\t2\t3\n", "check: sheet.tsv has two columns 'b'; "),
        (b"a\tb\n1\t2\n1\t2\t3\n", "check: sheet.tsv:3 has 3 fields, its header 2; "),
        (b"a\tb\n1\t2\n1\t\xe9\n", "check: sheet.tsv:3 is not UTF-8 "),
        (b'a\tb\n1\t"2\n', "check: sheet.tsv:2: unexpected end of data; "),
        ("a\tb\n1\t2\n".encode("utf-16"), "check: sheet.tsv:1 is not UTF-8 "),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "sheet.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        sheets.read(path, "check", ["a", "b"])
    assert str(error.value).startswith(said)


def test_no_parquet_and_no_folder_to_write_to_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "sheet.parquet"
    path.write_bytes(b"a\tb\n")
    with pytest.raises(UserError, match="cannot read sheet.parquet"):
        sheets.read(path, "check", ["a"])
    with pytest.raises(UserError, match="cannot write .*below.tsv: File exists; "):
        sheets.write(path / "below.tsv", pa.table({"a": ["x"]}), "check")
    with pytest.raises(UserError, match=r"cannot write 'sheet.xlsx'; expected a name in .tsv"):
        sheets.check_name(Path("sheet.xlsx"), "check")
