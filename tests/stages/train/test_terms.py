"""The table of loss terms, and terms that a script adds to it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from pipeline import clip, tables
from pipeline.config import validation_error
from pipeline.errors import UserError
from stages.train.config import Config, Loss
from stages.train.losses import Embeddings
from stages.train.objective import Objective
from stages.train.terms import OF_EMBEDDINGS, OF_WEIGHTS, TERMS, Term, sources
from tests.stages.training import config, made

ONLY = {"base": 0, "distill": 0, "igc": 0, "tgc": 0}


def spread(student: Embeddings, scale: Tensor) -> Tensor:
    return scale * (student.image_BD @ student.image_BD.T).square().mean()


def decay(parameters: list[Tensor], start: list[Tensor]) -> Tensor:
    return torch.stack([(mine - before).square().sum() for mine, before in zip(parameters, start, strict=True)]).sum()


Add = Callable[..., None]


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch) -> Add:
    return lambda name, **of: monkeypatch.setitem(TERMS, name, Term(**{"description": "images keep apart"} | of))


@pytest.mark.parametrize("name", TERMS)
def test_every_term_has_a_function_a_weight_and_a_description_of_one_line(name: str) -> None:
    term = TERMS[name]
    assert callable(term.resolved()) and term.resolved().__module__.startswith("stages.train.")
    assert set(term.takes) <= {*(OF_WEIGHTS if term.of_weights else OF_EMBEDDINGS), *Loss.model_fields}
    described = Loss.model_json_schema()["properties"][name]["description"]
    assert term.description in described and "\n" not in described
    assert Loss(**{name: 1, "clip": 1, "ema": 1}).weights()[name] == 1


def test_an_own_term_is_trained_with_and_has_its_column(world: dict[str, Any], tmp_path: Path, add: Add) -> None:
    add("spread", function=spread)
    found = made(world, tmp_path, epochs=1, batch=12, objective={**ONLY, "spread": 0.5})
    steps = tables.read(tmp_path / "steps")
    assert len(steps) == 2 and steps.column_names[15:17] == ["spread_loss", "logit_scale"]
    assert steps.schema.field("spread_loss").metadata[b"description"] == b"images keep apart"
    assert steps["loss"].to_pylist() == pytest.approx([value / 2 for value in steps["spread_loss"].to_pylist()])
    start, trained = clip.load(world["model"], seed=42), clip.load(str(tmp_path / "student"))
    assert not torch.equal(start.model.visual.proj, trained.model.visual.proj), "its gradient reached the weights"
    assert found["meta"]["weight_delta"]["image"] > 1e-4


def test_an_own_term_of_the_weights_pulls_them_to_where_they_were(
    world: dict[str, Any], tmp_path: Path, add: Add
) -> None:
    add("decay", function=decay, takes=("parameters", "start"))
    settings = {"epochs": 2, "weight_decay": 0.0}
    free = made(world, tmp_path / "free", **settings, objective={"ema": 1})
    held = made(world, tmp_path / "held", **settings, objective={"ema": 1, "decay": 1e4})
    assert held["steps"]["decay_loss"][0] == 0 and held["steps"]["decay_loss"][-1] > 0
    assert held["meta"]["weight_delta"]["text"] < 0.8 * free["meta"]["weight_delta"]["text"]
    with pytest.raises(ValidationError, match="decay measures from the start, so ema must be 1"):
        Loss(decay=1)
    with pytest.raises(ValidationError, match="at least one term must have a weight above 0"):
        Loss(**ONLY, decay=1, ema=1)


@pytest.mark.slow
def test_several_processes_know_an_own_term(world: dict[str, Any], tmp_path: Path, add: Add) -> None:
    add("spread", function=spread)
    settings = {"epochs": 1, "batch": 12, "objective": {"spread": 0.5}}
    one, two = made(world, tmp_path / "one", **settings), made(world, tmp_path / "two", **settings, processes=2)
    assert two["steps"]["spread_loss"] == pytest.approx(one["steps"]["spread_loss"], rel=1e-4)
    add("spread", function=lambda student, scale: spread(student, scale))
    with pytest.raises(UserError, match=r"another process cannot find the function .* --set train\.processes=1"):
        made(world, tmp_path / "lambda", **settings, processes=2)


def test_a_term_that_is_added_changes_no_training_without_it(world: dict[str, Any], add: Add) -> None:
    before = config(world).identity()
    add("spread", function=spread)
    assert config(world).identity() == before and "spread" not in Loss().model_dump()
    assert config(world, objective={"spread": 0.5}).identity()["objective"]["spread"] == 0.5
    assert list(Loss(spread=0.5).weights()) == [*Loss().weights(), "spread"]


def test_an_unknown_term_is_an_error_of_one_line(add: Add) -> None:
    add("spread", function=spread)
    for wrong, field, says in (
        ({"spraed": 0.5}, "objective.spraed", "Extra inputs are not permitted"),
        ({"spread": -1}, "objective.spread", "Input should be greater than or equal to 0"),
    ):
        with pytest.raises(ValidationError) as raised:
            Config.model_validate({"objective": wrong})
        assert raised.value.error_count() == 1
        line = str(validation_error("recipe", "demo", raised.value, "a term", "mend it"))
        assert line == f"recipe: demo: {field}: {says}; expected a term; fix: mend it"
    schema = Loss.model_json_schema()
    assert "spread" in schema["properties"] and schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"function": "stages.train.losses:spraed"}, "the term odd has no function: AttributeError"),
        ({"function": "nowhere.at_all:spread"}, "the term odd has no function: ModuleNotFoundError"),
        ({"function": spread, "takes": ("student", "scael")}, "the term odd takes scael; expected only .*threshold_T"),
        ({"function": spread, "takes": ("student", "start")}, "the term odd takes student; expected only"),
    ],
)
def test_a_term_that_cannot_be_computed_is_named(
    world: dict[str, Any], add: Add, wrong: dict[str, Any], says: str
) -> None:
    add("odd", **wrong)
    with pytest.raises(UserError, match=says):
        Objective(Loss(odd=1, ema=1), clip.load(world["model"]).model)


def test_terms_that_need_images_of_negatives_say_so(add: Add) -> None:
    add("spread", function=spread, needs_images=True)
    with pytest.raises(ValidationError, match="distractor and triplet and spread need negative_images"):
        Config(objective=Loss(spread=1))


def test_the_code_of_an_own_term_is_part_of_what_the_model_was_made_from(add: Add) -> None:
    add("mine", function=spread)
    outside = sources(["base", "mine"])
    assert set(outside) == {"term mine"}, "degla's own terms are told by the stage's version"
    add("mine", function=lambda student, scale: 2 * spread(student, scale))
    assert sources(["mine"]) != outside
    add("mine", function=len)
    assert sources(["mine"]).keys() == outside.keys()
