"""The checks on a file: the verdict of every row is that of `validate`, and the summary counts what a loop counts."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from stages.generate import check_file
from stages.generate.checks import validate

CAPTION = "a red dog chases a blue cat"
NAMES = ("type", "caption", "candidate", "siblings")
ROWS = [
    ("swap_nouns", CAPTION, "a red cat chases a blue dog", ""),
    ("swap_nouns", CAPTION, "a red cat chases a blue dog", "A red cat chases a blue dog. | two animals run"),
    ("swap_adjectives", CAPTION, "A blue dog chases a red cat.", ""),
    ("replace_nouns", CAPTION, CAPTION, ""),
    ("replace_adjectives", CAPTION, "not applicable", ""),
    ("replace_nouns", CAPTION, "", ""),
    ("paraphrase", CAPTION, "a blue cat is chased by a red dog", ""),
]


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    path = tmp_path / "rows.tsv"
    lines = [NAMES, *ROWS]
    path.write_text("".join("\t".join(line) + "\n" for line in lines))
    return path


def expected() -> list[dict[str, str | None]]:
    verdicts = [validate(kind, caption, text, near.split(" | ")) for kind, caption, text, near in ROWS]
    return [{"status": one.status, "reason": one.reason, "text": one.text} for one in verdicts]


@pytest.mark.parametrize("chunk", [1000, 2])
def test_every_row_gets_its_verdict_in_one_process_or_several(
    sheet: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_file, "CHUNK", chunk)
    told: list[tuple[str, int, int]] = []
    checked = check_file.check(check_file.read(sheet), lambda *step: told.append(step))
    assert checked.select(check_file.ADDED).to_pylist() == expected()
    assert [row["reason"] for row in expected()[:2]] == [None, "other_caption"], "siblings count"
    assert checked["text"].to_pylist()[2] == "a blue dog chases a red cat", "the surface is the caption's"
    assert told[-1] == ("rows", len(ROWS), len(ROWS))


def test_siblings_may_be_lists_and_earlier_verdicts_are_replaced(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = dict(zip(NAMES, map(list, zip(*ROWS, strict=True)), strict=True))
    columns["siblings"] = [text.split(" | ") if text else None for text in columns["siblings"]]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table(columns | {"reason": ["old"] * len(ROWS), "mine": range(len(ROWS))}), path)
    checked = check_file.check(check_file.read(path))
    assert checked.column_names == [*columns, "mine", *check_file.ADDED]
    assert checked.select(check_file.ADDED).to_pylist() == expected()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("swap_verbs", CAPTION, "x", ""), "check: row 8 has type 'swap_verbs'; expected one of reshuffle_order, "),
        (("swap_nouns", " ", "x", ""), "check: row 8 has no caption; "),
    ],
)
def test_a_row_that_cannot_be_checked_is_named(sheet: Path, row: tuple[str, ...], said: str) -> None:
    sheet.write_text(sheet.read_text() + "\t".join(row) + "\n")
    with pytest.raises(UserError) as error:
        check_file.read(sheet)
    assert str(error.value).startswith(said)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["swap_nouns", "replace_nouns"]),
            st.sampled_from([("accepted", None), ("rejected", "empty"), ("not_applicable", None)]),
            st.sampled_from([True, False, None]),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_the_summary_counts_what_a_loop_counts(rows: list[tuple[str, tuple[str, str | None], bool | None]]) -> None:
    kinds = [kind for kind, *_ in rows]
    checked = pa.table(
        {
            "type": kinds,
            "status": [verdict[0] for _, verdict, _ in rows],
            "reason": pa.array([verdict[1] for _, verdict, _ in rows], pa.string()),
        }
    )
    found = check_file.summary(checked, pa.array([usable for *_, usable in rows], pa.bool_()))
    assert set(found["types"]) == set(kinds)
    for kind, entry in {**found["types"], "all": found["all"]}.items():
        accepted = usable = unusable = both = wrong = undecided = count = 0
        for one, (status, _), label in rows:
            if kind not in (one, "all"):
                continue
            count += 1
            accepted += status == "accepted"
            undecided += label is None
            usable += label is True
            unusable += label is False
            both += label is True and status == "accepted"
            wrong += label is False and status == "accepted"
        assert entry["acceptance"] == accepted / count
        told = entry["labels"]
        assert (told["usable"], told["unusable"], told["undecided"]) == (usable, unusable, undecided)
        assert told["precision"]["value"] == (both / (both + wrong) if both + wrong else None)
        assert told["recall"]["value"] == (both / usable if usable else None)
        assert told["unusable_accepted"]["value"] == (wrong / unusable if unusable else None)
    assert "labels" not in check_file.summary(checked)["all"]
