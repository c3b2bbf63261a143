"""`degla label`: a sheet to read, its answers kept beside the artifact, card and report that state the precision."""

import csv
from pathlib import Path

import pytest

from tests.flows.cli.test_main import degla
from tests.pipeline.test_run import finished, home, opened, walk

__all__ = ["finished", "home"]

Rows = list[dict[str, str]]


def read(path: Path) -> Rows:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def write(path: Path, rows: Rows) -> None:
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def sheet(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """Three rows per type of the run `tiny`, unanswered."""
    path = home.parent / "sheet.tsv"
    status, out, err = degla(home, monkeypatch, capsys, "label", "tiny", "--n", "3", "--out", str(path))
    assert status == 0 and f"then: degla label tiny {path}" in out, err
    return path


def test_labels_go_into_card_and_report_and_make_nothing_else_again(
    home: Path, sheet: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = opened(home, tiny_recipe)
    negatives = run["negatives"]
    accepted = {
        (row["pair_id"], row["type"], row["text"])
        for row in negatives.table().to_pylist()
        if row["status"] == "accepted"
    }
    rows = read(sheet)
    assert all((row["pair_id"], row["type"], row["candidate"]) in accepted for row in rows)
    kinds = [row["type"] for row in rows]
    assert all(kinds.count(kind) == min(3, sum(one == kind for _, one, _ in accepted)) for kind in set(kinds))
    assert {row[name] for row in rows for name in ("grammatical", "false", "of_type", "plausible")} == {""}

    first = next(place for place, kind in enumerate(kinds) if kinds.count(kind) == 3)
    for place, row in enumerate(rows):
        row |= dict.fromkeys(("grammatical", "false", "of_type"), "0" if place == first else "1")
    rows[-1] |= dict.fromkeys(("grammatical", "false", "of_type"), "u")
    write(sheet, rows)
    status, out, err = degla(home, monkeypatch, capsys, "label", "tiny", str(sheet))
    assert status == 0 and f"{len(rows)} rows kept" in out and "66.7 (20.8 to 93.9)" in out, err
    card = run.folder / "negatives" / "card.md"
    assert f"| {kinds[first]} | 3 | 0 | 66.7 % | 20.8 to 93.9 % |" in card.read_text()
    assert run["negatives"].digest == negatives.digest

    assert walk(home, tiny_recipe) == ["report"]
    report = (run.folder / "report" / "report.md").read_text()
    assert f"| {kinds[first]} | 3 | 0 | 66.7 | 20.8 to 93.9 |" in report and "not labelled" not in report

    card.write_text("")
    opened(home, tiny_recipe).make("generate", force=True)
    assert f"| {kinds[first]} | 3 | 0 | 66.7 % | 20.8 to 93.9 % |" in card.read_text(), (
        "the same settings, the same labels"
    )
    assert walk(home, tiny_recipe) == []

    again = sheet.with_name("again.tsv")
    degla(home, monkeypatch, capsys, "label", "tiny", "--n", "3", "--out", str(again))
    assert read(again) == [row | {"plausible": "u"} for row in rows], "what was answered is filled in"


def test_what_no_person_wrote_into_a_sheet_is_one_line(
    home: Path, sheet: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(rows: Rows) -> str:
        write(sheet, rows)
        status, out, err = degla(home, monkeypatch, capsys, "label", "tiny", str(sheet))
        assert status == 2 and not out and err.count("\n") == 1
        return err

    rows = read(sheet)
    assert said(rows).startswith("label: no row is answered; expected 1, 0 or u under grammatical, false, of_type")
    rows[1]["false"] = "2"
    assert said(rows).startswith("label: row 2 has false '2'; expected 1, 0, or u")
    rows[1]["false"] = "1"
    assert said([*rows, rows[1]]).startswith(f"label: rows 2 and {len(rows) + 1} are the same; ")
    rows[1]["candidate"] = "somebody's"
    assert said(rows).startswith("label: row 2 is no accepted negative of this run (")
    assert said([{name: row[name] for name in row if name != "pair_id"} for row in rows]).startswith(
        "label: sheet.tsv has no column 'pair_id', found type, caption, "
    )
    assert not (home / "labels").exists() and "Not labelled" in (home / "tiny" / "negatives" / "card.md").read_text()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nobody"], "label: run 'nobody' has no negatives of its pairs; expected a run with negatives; "),
        (["tiny", "nowhere.tsv"], "label: there is no file nowhere.tsv; "),
        (["tiny", "--out", "{sheet}"], "label: there is a {sheet} already; "),
        (["tiny", "--out", "sheet.xlsx"], "label: cannot write 'sheet.xlsx'; "),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    home: Path, sheet: Path, words: list[str], line: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    status, _, err = degla(home, monkeypatch, capsys, "label", *(word.format(sheet=sheet) for word in words))
    assert status == 2 and err.startswith(line.format(sheet=sheet)) and err.count("\n") == 1, err
