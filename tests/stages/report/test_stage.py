"""The stage: light to import, and every file it reads from outside the store is in its identity."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import UserError
from stages.report import STAGE, Config


def test_importing_the_stage_loads_nothing_heavy() -> None:
    asked = "import sys, stages.report; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout.split()
    assert "stages.report.stage" in loaded
    assert not {"torch", "open_clip", "matplotlib", "jinja2", "scipy", "sklearn", "textblob"} & set(loaded)


def test_the_comparison_is_part_of_the_identity(tmp_path: Path) -> None:
    plain = STAGE.outside(Config())
    assert set(plain) == {"templates", "registry", "published"}
    path = tmp_path / "comparison.json"
    path.write_text("{}")
    first = STAGE.outside(Config(comparison=path))
    path.write_text("[]")
    second = STAGE.outside(Config(comparison=path))
    assert set(first) == set(second) == {*plain, "comparison"} and first["comparison"] != second["comparison"]


def test_an_absent_comparison_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"report: there is no .*absent.json"):
        STAGE.outside(Config(comparison=tmp_path / "absent.json"))
