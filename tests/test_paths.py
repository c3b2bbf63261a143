from pathlib import Path

import pytest

from tests import paths
from tests.conftest import skips


def test_real_data_is_taken_from_the_folder_that_is_named_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "DATA", None)
    with pytest.raises(pytest.skip.Exception, match="set DEGLA_TEST_DATA"):
        paths.real("benchmarks/valse")
    monkeypatch.setattr(paths, "DATA", tmp_path)
    with pytest.raises(pytest.skip.Exception, match="has no benchmarks/valse"):
        paths.real("benchmarks/valse")
    (tmp_path / "benchmarks" / "valse").mkdir(parents=True)
    assert paths.real("benchmarks/valse") == tmp_path / "benchmarks" / "valse"


def test_the_summary_counts_what_was_skipped_by_reason() -> None:
    assert skips(["Skipped: takes root", "Skipped: no data", "Skipped: no data"]) == [
        "skipped 2: no data",
        "skipped 1: takes root",
    ]
    assert skips([]) == []
