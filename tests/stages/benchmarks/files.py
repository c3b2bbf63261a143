"""Benchmark files for the tests of their readers."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.schema import SCORES
from stages.benchmarks import loaders
from stages.evaluate.aggregates import aggregate
from stages.evaluate.rows import margin
from tests.stages.small_road import picture

NAMED = {"caption": "a", "negative_caption": "b"}
ARO = {"image_path": "0.png", "true_caption": "a", "false_caption": "b", "relation_name": "above"}
BOX = {"bbox_x": 0, "bbox_y": 0, "bbox_w": 20, "bbox_h": 40}


def save(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def jpeg(path: Path, left: str = "red", right: str = "blue") -> bytes:
    picture(path, left, right)
    return path.read_bytes()


def assert_refused(root: Path, file: str, content: object, message: str) -> None:
    """Reading the benchmark of `file` with that content is a user error of one line that says so."""
    save(root / file, content)
    with pytest.raises(UserError, match=message) as caught:
        loaders.read(file.partition("/")[0], root)
    assert "\n" not in str(caught.value)


def scored(benchmark: str, subset: str, rule: Any, similarities: list[list[float]]) -> dict[str, Any]:
    """Aggregate -> value, of one subset with these similarities by row."""
    rows = [
        {"model": "m", "benchmark": benchmark, "subset": subset, "row_id": str(i), "image_key": str(i), "group": None,
         "similarities": s, "correct": float(margin(rule, s) > 0), "tie": False, "leaked": False, "protocol": "p"}
        for i, s in enumerate(similarities)
    ]  # fmt: skip
    return {name: one["m"]["value"] for name, one in aggregate(pa.Table.from_pylist(rows, SCORES)).items()}
