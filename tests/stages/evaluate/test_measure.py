"""Scoring models without a run, and which rows a run is scored on."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import clip
from pipeline.errors import UserError
from pipeline.stage import silent
from stages.evaluate import STAGE, Config
from stages.evaluate.measure import Measured, leaked_rows, measure, subsets_of
from tests.stages.small_road import SmallRoad, build, model_folder, write_benchmarks


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> SmallRoad:
    return build(tmp_path_factory.mktemp("home"))


def alone(student: str, root: Path, **config: Any) -> Measured:
    return measure({"model": partial(clip.load, student)}, Config(root=root, official=False, **config))


def test_any_model_is_evaluated_without_a_run(road: SmallRoad, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(road.artifacts["pairs"].path / "benchmarks", root)
    student = str(road.artifacts["model"].path / "student")
    scores, found, *_ = alone(student, root, benchmarks=("sugarcrepe", "aro"))
    (tmp_path / "out").mkdir()
    config = Config(benchmarks=("sugarcrepe", "aro"))
    meta = STAGE.run(config, road.artifacts, tmp_path / "out", silent)
    assert found["composition"]["model"]["value"] == meta["aggregates"]["composition"]["after"]["value"]
    assert set(scores["benchmark"].unique().to_pylist()) == {"sugarcrepe", "aro"}


def test_newer_sets_are_read_and_scored(road: SmallRoad, tmp_path: Path) -> None:
    picture = road.artifacts["pairs"].path / "images/0.png"
    for name in ("sugarcrepe_pp", "winoground", "cola"):
        (tmp_path / name / "images").mkdir(parents=True)
        shutil.copy(picture, tmp_path / name / "images" / "0.png")
        shutil.copy(picture.with_name("1.png"), tmp_path / name / "images" / "1.png")
    three = {"filename": "0.png", "caption": "a cup", "caption2": "one cup", "negative_caption": "a dog"}
    (tmp_path / "sugarcrepe_pp/swap_obj.json").write_text(json.dumps([{"id": 0, **three}]))
    line = {"id": 0, "image_0": "0", "image_1": "1", "caption_0": "a cup on a dog", "caption_1": "a dog on a cup"}
    (tmp_path / "winoground/examples.jsonl").write_text(json.dumps(line) + "\n")
    four = ["https://x/y/0.png", "a cup", "https://x/y/1.png", "a dog"]
    (tmp_path / "cola/COLA_multiobjects_matching_benchmark.json").write_text(json.dumps([four]))
    student = str(road.artifacts["model"].path / "student")
    scores, found, *_ = alone(student, tmp_path)
    lengths = {row["subset"]: len(row["similarities"]) for row in scores.to_pylist()}
    assert lengths == {"swap_obj.itt": 3, "swap_obj.tot": 3, "all": 4, "multi_object": 4}
    assert {"sugarcrepe_pp.itt", "sugarcrepe_pp.tot", "winoground.group", "cola.image"} <= set(found)
    assert "composition" not in found


def test_one_encoding_per_distinct_image_and_text(road: SmallRoad, tmp_path: Path) -> None:
    STAGE.run(Config(), road.artifacts, tmp_path, silent)
    subsets, _ = subsets_of(Config(), road.artifacts)
    images = {row.image for s in subsets for row in s.rows if row.image} | {p for s in subsets for p in s.image_options}
    texts = {t for s in subsets for row in s.rows for t in row.texts} | {
        t for s in subsets for ts in s.prompts for t in ts
    }
    for name, distinct in (("images", images), ("texts", texts)):
        (encoded,) = (tmp_path / ".work/before").glob(f"{name}-*.npy")
        assert len(np.load(encoded)) == len(distinct)


def test_leaked_rows_are_those_of_training_pairs(road: SmallRoad) -> None:
    assert leaked_rows(road.artifacts["dataset"]) == {("sugarcrepe", "swap_att", "0")}


def test_kept_embeddings_serve_the_next_call(tmp_path: Path) -> None:
    write_benchmarks(tmp_path / "root")
    config = Config(root=tmp_path / "root", official=False, benchmarks=("sugarcrepe",), blind=False)
    load = partial(clip.load, str(model_folder(tmp_path / "tower")), seed=1)
    first = measure({"model": load}, config, {"model": tmp_path / "kept"})
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").glob("*.npy")}
    again = measure({"model": load}, config, {"model": tmp_path / "kept"})
    assert len(written) == 2 and again.aggregates == first.aggregates
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").glob("*.npy")} == written


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"root": None}, "no folder of benchmarks is given"),
        ({"curve": (0.5,)}, r"curve = \[0.5\] is given without a run"),
        ({"benchmarks": ("retrieval",)}, "there is no benchmark 'retrieval'"),
        ({}, "holds no benchmark"),
    ],
)
def test_what_has_no_meaning_without_a_run_is_said(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        measure({}, Config(**({"root": tmp_path} | config)))
