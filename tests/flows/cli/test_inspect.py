import csv
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest

from tests.flows.cli.test_main import degla
from tests.paths import ROOT
from tests.pipeline.test_run import finished, home

__all__ = ["finished", "home"]

ODD = """select 1 as one, 'a|b' as bar, null as nothing, 'nan'::float as unscored, [1.5, 'nan'::float] as list,
         date '2026-11-30' as day, 'two' || chr(10) || 'lines' as text, chr(27) || '[31m' as escape"""


@pytest.fixture
def sql(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def asked(query: str, *words: str) -> str:
        status, out, err = degla(home, monkeypatch, capsys, "sql", "tiny", query, *words)
        assert status == 0, err
        return out

    return asked


def test_json_has_every_value_as_json_has_it(sql: Callable[..., str]) -> None:
    (row,) = json.loads(sql(ODD, "--format", "json"))
    assert (row["one"], row["nothing"], row["unscored"], row["list"]) == (1, None, None, [1.5, None])
    assert (row["bar"], row["day"], row["text"]) == ("a|b", "2026-11-30", "two\nlines")
    assert sql(ODD, "--json") == sql(ODD, "--format", "json")


def test_csv_reads_back_and_markdown_keeps_to_its_rows(sql: Callable[..., str]) -> None:
    (row,) = csv.DictReader(StringIO(sql(ODD, "--format", "csv")))
    assert row["bar"] == "a|b" and row["text"] == "two\nlines" and row["nothing"] == ""
    assert json.loads(row["list"]) == [1.5, None]
    heads, rule, cells = sql(ODD, "--format", "md").splitlines()
    assert heads.count("|") == rule.count("|") == cells.replace("\\|", "").count("|") and "two lines" in cells


def test_a_pipe_gets_every_column_and_row_and_a_box_steers_no_terminal(sql: Callable[..., str]) -> None:
    columns = ", ".join(f"range as a_column_of_name_{index}" for index in range(40))
    box = sql(f"select {columns} from range(1200)")
    assert "a_column_of_name_39" in box and "1199" in box
    assert "\x1b" not in sql(ODD)


def test_a_score_leads_back_to_caption_negative_and_writer(sql: Callable[..., str]) -> None:
    query = (ROOT / "docs" / "queries.md").read_text().split("```sql\n")[-1].split("```")[0]
    rows = json.loads(sql(query, "--format", "json"))
    assert rows and all(row["negative"] and row["caption"] != row["negative"] and row["image"] for row in rows)
    assert {row["writer"] for row in rows} == {"rules"} and {row["prompt_digest"] for row in rows} == {"none"}
