"""The WiSE-FT curve of a small run: its ends are the starting and the trained model, scored on the run's benchmarks."""

import json
from pathlib import Path

import pytest

from flows import interpolation, recipe, road
from pipeline.errors import UserError
from pipeline.stage import silent
from stages.evaluate import evaluate_model
from tests.stages import small_road


def test_the_curve_goes_from_the_start_to_the_trained_model(tmp_path: Path) -> None:
    made = small_road.build(tmp_path / "home", 12)
    small_road.write_benchmarks(tmp_path / "benchmarks")
    settings = [f"evaluate.root={tmp_path / 'benchmarks'}", "evaluate.official=false"]
    road.keep_recipe(made.store, "small", recipe.load("demo", settings))
    for artifact in made.artifacts.values():
        made.store.link("small", artifact)
    found = interpolation.curve(made.store, "small", [0.0, 0.5, 1.0], silent)
    assert [row["alpha"] for row in found] == [0.0, 0.5, 1.0]
    model = made.artifacts["model"]
    _, trained = evaluate_model(
        str(model.path / "student"), root=tmp_path / "benchmarks", official=False, with_blind=False, resamples=100
    )
    for name, one in trained.items():
        assert found[-1][name] == one["model"]["value"]
    assert json.loads((tmp_path / "home" / "small" / "interpolation" / "curve.json").read_text()) == found


def test_a_run_without_a_model_is_refused(tmp_path: Path) -> None:
    made = small_road.build(tmp_path / "home", 4)
    with pytest.raises(UserError, match="run 'nothing' has no model"):
        interpolation.curve(made.store, "nothing", [0.0, 1.0], silent)
