"""`degla check` as a user calls it: tables, JSON, the file it writes, and one line for a mistake."""

import json
from pathlib import Path

import pytest

from tests.flows.cli.test_main import degla

SHEET = """type\tcaption\tcandidate\tgrammatical\tfalse\tof_type
swap_nouns\ta dog chases a cat\ta cat chases a dog\t1\t1\t1
swap_nouns\ta dog near a cat\tA cat near a dog.\t1\t0\t1
swap_nouns\ta man rides a horse\ta man rides a horse\t1\t0\t0
replace_nouns\ta dog on a sofa\ta camel on a sofa\t1\t1\tu
"""


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    path = tmp_path / "mine.tsv"
    path.write_text(SHEET)
    return path


def test_it_says_what_passes_and_how_far_labels_agree(
    sheet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "checked.csv"
    status, out, err = degla(tmp_path, monkeypatch, capsys, "check", str(sheet), "--out", str(target))
    assert status == 0, err
    assert "identical" in out and "precision" in out and f"4 rows in {target}" in out
    lines = target.read_text().splitlines()
    assert lines[0] == "type,caption,candidate,grammatical,false,of_type,status,reason,text"
    assert lines[1].endswith(",accepted,,a cat chases a dog")
    assert lines[3].endswith(",rejected,identical,a man rides a horse")
    status, out, _ = degla(tmp_path, monkeypatch, capsys, "check", str(target), "--json")
    found = json.loads(out)
    assert status == 0 and found["all"]["labels"]["undecided"] == 1
    assert found["types"]["swap_nouns"]["labels"]["recall"]["value"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.tsv"], "check: there is no file "),
        (["mine.tsv", "--label", "good"], "check: there is no column 'good', found type, "),
        (["mine.tsv", "--label", "caption"], "check: row 1 has caption 'a dog chases a cat'; expected 1, 0, or u"),
        (["mine.tsv", "--out", "x.xlsx"], "check: cannot write 'x.xlsx'; expected a name in .tsv, .csv or .parquet"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    sheet: Path, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(sheet.parent)
    status, out, err = degla(sheet.parent, monkeypatch, capsys, "check", *words)
    assert status == 2 and err.startswith(said) and err.count("\n") == 1 and not out
