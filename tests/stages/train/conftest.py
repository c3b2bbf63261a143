"""A small world to train on, and one training of it that nothing disturbs."""

from typing import Any

import pytest

from tests.stages.training import made, small_clip, small_inputs


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("train")
    return {"folder": folder, "model": small_clip(folder / "model"), "inputs": small_inputs(folder, pictures=12)}


@pytest.fixture(scope="module")
def undisturbed(world: dict[str, Any]) -> dict[str, Any]:
    return made(world, world["folder"] / "undisturbed")
