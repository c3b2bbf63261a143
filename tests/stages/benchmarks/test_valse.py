"""VALSE's files, and its means by every published rule."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.schema import SCORES
from stages.benchmarks import loaders as benchmarks
from stages.benchmarks.valse import PHENOMENA
from stages.evaluate.aggregates import aggregate
from tests.stages.benchmarks.files import assert_refused
from tests.stages.small_road import write_benchmarks


def test_rows_that_too_few_annotators_confirmed_are_left_out(tmp_path: Path) -> None:
    write_benchmarks(tmp_path)
    existence, plurals = benchmarks.load("valse", tmp_path, official=False)
    assert (existence.name, plurals.name, existence.tie) == ("existence", "plurals", "wrong")
    assert [row.row_id for row in existence.rows] == ["existence_1", "existence_2", "existence_3"]
    assert {row.group for row in plurals.rows} == {"plurals"}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("valse/x.json", {"1": {"mturk": {"caption": "3"}}}, "row 1 has caption = '3'"),
    ],
)
def test_broken_files_are_one_line_that_says_where(tmp_path: Path, file: str, content: object, message: str) -> None:
    assert_refused(tmp_path, file, content, message)


def test_valse_means_by_every_published_rule() -> None:
    """One score per file; the four rules as the papers state them, by hand."""
    rng = np.random.default_rng(0)
    n = {name: int(rng.integers(5, 40)) for name in PHENOMENA}
    right = {name: int(rng.integers(0, n[name])) for name in PHENOMENA}
    rows = [
        {"model": "m", "benchmark": "valse", "subset": name, "row_id": str(i), "image_key": f"{name}{i}", "group": None,
         "similarities": [1.0, 0.0], "correct": float(i < right[name]), "tie": False, "leaked": False, "protocol": "p"}
        for name in PHENOMENA for i in range(n[name])
    ]  # fmt: skip
    found = aggregate(pa.Table.from_pylist(rows, schema=SCORES))
    acc = {name: right[name] / n[name] for name in PHENOMENA}
    by: dict[str, list[float]] = {}
    for name, phenomenon in PHENOMENA.items():
        by.setdefault(phenomenon, []).append(acc[name])
    counting = float(np.mean(by["counting"]))
    nine = [counting, *(acc[name] for name, one in PHENOMENA.items() if one != "counting")]
    expected = {
        "mean11": np.mean(list(acc.values())), "mean_files": np.mean(list(acc.values())), "mean9": np.mean(nine),
        "mean7": np.mean([np.mean(values) for values in by.values()]), "micro": sum(right.values()) / sum(n.values()),
    }  # fmt: skip
    assert len(by) == 7 and len(nine) == 9
    for rule, value in expected.items():
        assert found[f"valse.{rule}"]["m"]["value"] == pytest.approx(value), rule
