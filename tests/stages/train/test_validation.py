"""The epoch that is kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline import clip, tables
from pipeline.errors import UserError
from pipeline.negative_types import NEGATIVE_TYPES
from pipeline.schema import DATASET
from stages.train import checkpoints
from tests.stages.training import StoppedError, made, small_inputs, stop_at


def with_val(world: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same pairs, a third of them held out."""
    inputs = small_inputs(folder, pictures=12)
    rows = tables.read(inputs["dataset"].path).to_pylist()
    for row in rows:
        row["split"] = "val" if row["image_key"] in ("k0", "k1", "k2", "k3") else row["split"]
    for path in tables.files(inputs["dataset"].path):
        tables.write(path, rows if path.name.endswith("00000.parquet") else [], DATASET)
    return {**world, "inputs": inputs}


def test_the_epoch_that_is_best_on_the_val_split_is_kept(world: dict[str, Any], tmp_path: Path) -> None:
    held = with_val(world, tmp_path)
    settings = {"batch": 4, "lr": 0.02, "select": "best", "epochs": 6}
    best = made(held, tmp_path / "best", **settings)
    history = best["meta"]["validation"]
    assert len(history) == 6 and history[-1]["step"] == best["meta"]["steps"]
    chosen = max(history, key=lambda one: one["score"])["step"]
    assert best["meta"]["kept_step"] == chosen < best["meta"]["steps"], "the last epoch is not the best here"
    with pytest.raises(StoppedError):
        made(held, tmp_path / "until", stop_at(chosen + 1), **settings | {"checkpoint_steps": 1})
    state = checkpoints.best(tmp_path / "until" / ".work", chosen)["student"]
    found = load_file(tmp_path / "best" / "student" / clip.WEIGHTS)
    assert all(torch.equal(tensor, found[name]) for name, tensor in state.items())
    resumed = made(held, tmp_path / "until", **settings)
    assert resumed["student"] == best["student"] and resumed["meta"]["validation"] == history


def test_without_a_val_split_no_epoch_can_be_chosen(world: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the dataset has no row in split val"):
        made(world, tmp_path, select="best")


def test_the_score_asks_about_all_types_whichever_are_trained_with(world: dict[str, Any], tmp_path: Path) -> None:
    """Trained with one type, of which the val split has none: the others are asked about all the same."""
    held, (kind, *_) = with_val(world, tmp_path), NEGATIVE_TYPES
    for path in tables.files(held["inputs"]["dataset"].path):
        rows = tables.read(path.parent).to_pylist() if path.name.endswith("00000.parquet") else []
        none = {kind: None, f"{kind}_tokens": None}
        tables.write(path, [row | (none if row["split"] == "val" else {}) for row in rows], DATASET)
    settings = {"batch": 4, "lr": 1e-12, "select": "best", "epochs": 1}
    (found,) = made(held, tmp_path / "few", **settings, types=(kind,))["meta"]["validation"]
    assert found["score"] == (found["own"] + found["retrieval"]) / 2
