from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline import tables
from pipeline.errors import UserError
from pipeline.negative_types import NEGATIVE_TYPES, PARAPHRASE
from pipeline.schema import DATASET, NEGATIVES, PAIRS
from stages.assemble.checks import Check, read_checks, render_checks, validate
from tests.stages.assemble.test_stage import NEGATIVE_ROWS, PAIRS_ROWS, negative, pair

TRIPS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]] = {
    "pair_id occurs twice in pairs": ([PAIRS_ROWS[0], PAIRS_ROWS[0]], [], []),
    "one picture has captions in two splits": ([PAIRS_ROWS[0], PAIRS_ROWS[1] | {"split": "val"}], [], []),
    "copies of one picture are in two splits": ([], [], [{"pair_id": "a"}, {"pair_id": "b", "split": "val"}]),
    "caption is empty": ([PAIRS_ROWS[0] | {"caption": " "}], [], []),
    "negative of an unknown pair": ([PAIRS_ROWS[1]], NEGATIVE_ROWS[:1], []),
    "negative of an unknown type": (PAIRS_ROWS, [NEGATIVE_ROWS[0] | {"type": "swap_verbs"}], []),
    "two accepted negatives of one type for one pair": (PAIRS_ROWS, [NEGATIVE_ROWS[0], NEGATIVE_ROWS[0]], []),
    "accepted negative without text": (PAIRS_ROWS, [NEGATIVE_ROWS[0] | {"text": ""}], []),
    "accepted negative equals its caption": (
        PAIRS_ROWS,
        [negative(PAIRS_ROWS[0], "swap_nouns", "A RED cup is on a blue table.")],
        [],
    ),
    "accepted negative is another caption of the same picture": (
        PAIRS_ROWS,
        [negative(PAIRS_ROWS[0], "swap_nouns", "A blue table holds a red cup.")],
        [],
    ),
    "rejected negative without a reason": (PAIRS_ROWS, [NEGATIVE_ROWS[3] | {"reason": None}], []),
    "pair_id occurs twice in dataset": (PAIRS_ROWS, [], [{"pair_id": "a"}, {"pair_id": "a"}]),
    "text without tokens, or tokens without text, in dataset": ([], [], [{"pair_id": "a", "swap_nouns": "A."}]),
    "pair without any accepted negative": (PAIRS_ROWS, NEGATIVE_ROWS, []),
    "one text is two negatives of a pair": (
        PAIRS_ROWS,
        [NEGATIVE_ROWS[0], NEGATIVE_ROWS[0] | {"type": "swap_nouns"}],
        [],
    ),
    "caption fills CLIP's 77 tokens and may be cut": ([], [], [{"pair_id": "a", "caption_tokens": list(range(77))}]),
    "training pair overlaps with a benchmark": ([], [], [{"pair_id": "a", "leaks": ["valse"]}]),
    "caption shared by different pictures": ([PAIRS_ROWS[0], pair(9, "A red cup is on a blue table.", 9)], [], []),
    "one picture under several names": ([PAIRS_ROWS[0], PAIRS_ROWS[2] | {"image_sha256": f"{1:064x}"}], [], []),
    "negative text shared by more than twenty pairs": (
        several := [pair(100 + i, f"Thing {i}.", 100 + i) for i in range(21)],
        [negative(row, "replace_nouns", "A cow.") for row in several],
        [],
    ),
}


@pytest.mark.parametrize("check", read_checks(), ids=lambda check: check.what)
def test_every_check_has_a_table_that_trips_it_and_one_that_does_not(tmp_path: Path, check: Check) -> None:
    def offenders(pairs: list[Any], negatives: list[Any], dataset: list[Any]) -> int:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        tables.write(tables.part(folder / "p", 0), pairs, PAIRS)
        tables.write(tables.part(folder / "n", 0), negatives, NEGATIVES)
        empty = dict.fromkeys(DATASET.names)
        complete = {
            "image_key": "",
            "image_group": "",
            "image_uri": "",
            "caption": "",
            "split": "train",
            "leaks": [],
            "caption_tokens": [1, 2],
        }
        tables.write(tables.part(folder / "d", 0), [empty | complete | row for row in dataset], DATASET)
        with tables.connect({"pairs": folder / "p", "negatives": folder / "n", "dataset": folder / "d"}) as sql:
            return validate(sql, [check._replace(severity="warning")])[check.what]

    assert offenders(*TRIPS[check.what]) > 0
    full = [negative(PAIRS_ROWS[i], "swap_nouns", f"Something else {i}.") for i in range(4)]
    assert offenders(PAIRS_ROWS, full, [{"pair_id": "a"}]) == 0


def test_an_error_stops_and_names_a_row() -> None:
    check = Check("error", "caption is empty", "select 'row-7' as pair_id")
    with duckdb.connect() as sql, pytest.raises(UserError, match=r"assemble: caption is empty: 1 rows, e\.g\. row-7"):
        validate(sql, [check])


def test_the_queries_follow_the_list_of_negative_types() -> None:
    assert all(f"or ({kind} is null) <> ({kind}_tokens is null)" in render_checks() for kind in NEGATIVE_TYPES)
    known = ", ".join(f"'{kind}'" for kind in (*NEGATIVE_TYPES, "swap_verbs", PARAPHRASE))
    more = render_checks((*NEGATIVE_TYPES, "swap_verbs"))
    assert f"({known});" in more and "or (swap_verbs is null) <> (swap_verbs_tokens is null);" in more
