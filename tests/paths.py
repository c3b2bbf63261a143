"""Where the checkout is, and the real data that does not come with it."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
"""The checkout."""

DATA = Path(os.environ["DEGLA_TEST_DATA"]).expanduser().resolve() if os.environ.get("DEGLA_TEST_DATA") else None
"""Real data that nobody may commit: benchmarks/sugarcrepe/, benchmarks/valse/, formats/neg_clip_valid.tsv."""

HINT = "set DEGLA_TEST_DATA to a folder with benchmarks/sugarcrepe/, benchmarks/valse/, formats/neg_clip_valid.tsv"


def real(name: str) -> Path:
    """A file or folder below `$DEGLA_TEST_DATA`; skips the test that asks where it is not there."""
    if DATA is None:
        pytest.skip(f"the real benchmark files are not there ({HINT})")
    if not (DATA / name).exists():
        pytest.skip(f"DEGLA_TEST_DATA has no {name} ({HINT})")
    return DATA / name
