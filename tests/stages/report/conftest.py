"""A finished small road and the report of it, made once for the tests of this folder."""

from pathlib import Path

import pytest

from pipeline.stage import silent
from stages.report import STAGE, Config
from tests.stages.small_road import SmallRoad, build, scored


@pytest.fixture(scope="package")
def road(tmp_path_factory: pytest.TempPathFactory) -> SmallRoad:
    return scored(build(tmp_path_factory.mktemp("home")), curve=(0.5,))


@pytest.fixture(scope="package")
def page(road: SmallRoad, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    STAGE.run(Config(), road.artifacts, out, silent)
    return out
