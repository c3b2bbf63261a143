"""Scores as CLIP_benchmark's result files."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.artifact import Artifact
from stages.export.results import export


def score(value: float | None, **more: Any) -> dict[str, Any]:
    told = {"before": {"value": 0.1}, "after": {"value": value}}
    return {"measure": "correct", "subset": None, "says": "a mean", **told, **more}


AGGREGATES = {
    "composition": score(0.9),
    "sugarcrepe.macro7": score(0.8),
    "sugarcrepe.swap_att": score(0.7, subset="swap_att", says="accuracy"),
    "valse.foil-it": score(None, subset="foil-it", says="accuracy"),
    "zeroshot.mean": score(0.5),
    "zeroshot.flowers102.top1": score(0.6, subset="flowers102"),
    "zeroshot.flowers102.mean_per_class": score(0.5),
    "zeroshot.sun397.top1": score(0.4, subset="sun397"),
    "coco_retrieval.t2i_r5": score(0.3, measure="at5"),
    "coco_retrieval.i2t_r1": score(0.2, subset="i2t"),
}


def test_each_set_and_model_is_a_file_by_its_names_and_its_rule(tmp_path: Path) -> None:
    AGGREGATES["sugarcrepe.swap_att"]["after"]["ties"] = {"n": 1, "wrong": 0.7, "right": 0.75}
    scores = cast(Artifact, SimpleNamespace(meta={"aggregates": AGGREGATES}))
    assert export(scores, {"model": "ViT-B-32", "pretrained": "openai"}, "mine", tmp_path / "there") == 9
    found = [json.loads(path.read_text()) for path in sorted((tmp_path / "there").iterdir())]
    after = {one["dataset"]: one for one in found if one["pretrained"] == "mine"}
    assert {name: (one["task"], one["metrics"]) for name, one in after.items()} == {
        "sugar_crepe/swap_att": ("image_caption_selection", {"acc": 0.75}),
        "flowers": ("zeroshot_classification", {"acc1": 0.6, "mean_per_class_recall": 0.5}),
        "degla/sun397": ("zeroshot_classification", {"acc1": 0.4}),
        "mscoco_captions": (
            "zeroshot_retrieval", {"image_retrieval_recall@5": 0.3, "text_retrieval_recall@1": 0.2},
        ),
    }  # fmt: skip
    before = next(one for one in found if one["dataset"] == "degla/valse/foil-it")
    assert (before["model"], before["pretrained"], before["metrics"]) == ("ViT-B-32", "openai", {"acc": 0.1})
    assert {"dataset", "model", "pretrained", "task", "metrics", "language"} == set(before)
    assert before["metrics"]["acc"] == pytest.approx(0.1)
