"""Scores as mteb's result files."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.artifact import Artifact
from pipeline.errors import UserError
from stages.export.mteb import export

START = {"model": "ViT-B-32", "pretrained": "openai"}


def scored(n: int = 20, *, official: bool = True) -> Artifact:
    names = ("sugarcrepe.micro", "aro.vg_relation.micro", "winoground.text", "winoground.image", "winoground.group")
    aggregates: dict[str, Any] = {
        name: {"before": {"value": 0.1}, "after": {"value": (1 + place) / 8}, "n": n, "of": 20}
        for place, name in enumerate(names)
    }
    aggregates["aro.coco_order"] = aggregates["sugarcrepe.micro"]
    protocols = {"sugarcrepe.swap_att": "choice;a", "aro.vg_relation": "choice;b", "winoground.all": "square;c"}
    meta = {"aggregates": aggregates, "official": official, "protocols": protocols}
    return cast(Artifact, SimpleNamespace(meta=meta, manifest=SimpleNamespace(inputs={"model": "abc123"})))


def test_each_task_of_same_rows_and_rule_is_a_file_under_model_and_revision(tmp_path: Path) -> None:
    assert export(scored(), START, "mine", tmp_path) == 6
    found = {str(path.relative_to(tmp_path)): json.loads(path.read_text()) for path in tmp_path.rglob("*.json")}
    after = "degla__mine/abc123"
    tasks = {"SugarCrepe.json", "AROVisualRelation.json", "Winoground.json", "model_meta.json"}
    assert found.keys() == {f"{folder}/{name}" for folder in (after, "degla__ViT-B-32-openai/start") for name in tasks}
    assert found[f"{after}/model_meta.json"] == {"name": "degla/mine", "revision": "abc123"}
    winoground = found[f"{after}/Winoground.json"]
    (told,) = winoground["scores"]["test"]
    assert told == {
        "text_acc": 3 / 8, "image_acc": 4 / 8, "accuracy": 5 / 8, "main_score": 5 / 8,
        "hf_subset": "default", "languages": ["eng-Latn"],
    }  # fmt: skip
    assert winoground["task_name"] == "Winoground" and winoground["mteb_version"] is None, "mteb did not measure it"
    revisions = {one["dataset_revision"] for one in found.values() if "task_name" in one}
    assert len(revisions) == 3 and all(revision.startswith("degla-") for revision in revisions)


@pytest.mark.parametrize("scores", [scored(19), scored(official=False)], ids=["rows missing", "other files"])
def test_what_is_not_the_task_is_not_called_so(tmp_path: Path, scores: Artifact) -> None:
    with pytest.raises(
        UserError, match=r"no score of run 'mine' is one of mteb's tasks; expected SugarCrepe, .* fix: "
    ):
        export(scores, START, "mine", tmp_path)
    assert not list(tmp_path.iterdir())
