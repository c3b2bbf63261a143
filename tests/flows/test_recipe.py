import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from flows import recipe
from pipeline.errors import UserError


@pytest.mark.parametrize("path", sorted(recipe.RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid_and_says_what_it_is_for(path: Path) -> None:
    loaded = recipe.load(path.stem)
    assert len(loaded.description) > 20
    assert recipe.validated(yaml.safe_load(recipe.dump(loaded))) == loaded


def test_overrides_reach_any_depth_and_are_typed() -> None:
    loaded = recipe.load("demo", ["train.lr=2e-3", "train.objective.igc=0.5", "ingest.world.pictures=20"])
    assert (loaded.train.lr, loaded.train.objective.igc, loaded.ingest.world.pictures) == (2e-3, 0.5, 20)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.lrr=1", r"recipe: train\.lrr is wrong \(given 1\); expected one of .*lr, .*; fix: "),
        ("tarin.lr=1", r"recipe: tarin is wrong .*; expected one of description, ingest, generate"),
        ("train.lr=-1", r"recipe: train\.lr is wrong \(given -1\); expected input should be greater than 0"),
        ("train.objective.igcc=1", r"recipe: train\.objective\.igcc is wrong .* expected one of base, distill"),
        ("train.lr", "override 'train.lr' is wrong; expected section.field=value"),
        ("train.lr.x=1", r"goes below lr|train\.lr is wrong"),
    ],
)
def test_a_wrong_override_names_the_field(override: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        recipe.load("demo", [override])


def test_a_recipe_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read 'dmeo' .*; expected one of .*demo"):
        recipe.load("dmeo")
    (tmp_path / "r.yaml").write_text("- just\n- a list\n")
    with pytest.raises(UserError, match="holds a list"):
        recipe.load(str(tmp_path / "r.yaml"))
    (tmp_path / "r.yaml").write_text("train: {lr: 0.1")
    with pytest.raises(UserError, match=r"r\.yaml is not YAML"):
        recipe.load(str(tmp_path / "r.yaml"))


@given(st.text(max_size=30))
def test_no_override_ever_ends_in_a_traceback(text: str) -> None:
    try:
        recipe.load("demo", [text])
    except UserError as error:
        assert "\n" not in str(error)


def test_schema_describes_every_field() -> None:
    schema = json.loads(recipe.schema())
    for name, section in {"Recipe": schema, **schema["$defs"]}.items():
        for field, facts in section.get("properties", {}).items():
            assert facts.get("description"), f"{name}.{field}"
