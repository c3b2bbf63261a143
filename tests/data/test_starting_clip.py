"""The committed starting CLIP: small, loadable, good at naming things, and blind to which word belongs to which."""

from functools import partial
from pathlib import Path

import pytest

from pipeline import clip
from stages.evaluate import Config
from stages.evaluate.measure import measure
from stages.world import datasets as scene_sets
from tests.paths import ROOT

FOLDER = ROOT / "data" / "starting_clip"


def test_it_is_small_and_has_its_card() -> None:
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert {clip.CONFIG, clip.WEIGHTS, clip.CARD, "README.md"} <= set(files)
    assert sum(files.values()) <= 14 * 2**20


@pytest.mark.slow
def test_it_has_the_weakness_this_project_exists_for(tmp_path: Path) -> None:
    scene_sets.write_benchmarks(tmp_path, 100, 5)
    asked = Config(root=tmp_path, benchmarks=("aro", "sugarcrepe", "zeroshot"), official=False)
    scores = measure({"model": partial(clip.load, str(FOLDER))}, asked).aggregates
    value = {name: one["model"]["value"] for name, one in scores.items()}
    assert 0.60 < value["zeroshot.mean"] < 0.85, "it names what is there, with room to gain and to lose"
    assert value["sugarcrepe.replace"] > 0.8, "and hears when another thing is named"
    for name, most in (("aro.vg_attribution.macro", 0.65), ("aro.vg_relation.macro", 0.65), ("sugarcrepe.swap", 0.75)):
        assert value[name] < most, f"{name}: not far from the coin when words change places"
