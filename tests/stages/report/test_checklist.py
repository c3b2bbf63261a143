"""The checklist: each line follows the manifests."""

import json
from typing import Any

from pipeline.artifact import Artifact
from stages.report.checklist import checklist
from tests.stages.report.reading import altered
from tests.stages.small_road import SmallRoad


def lines(road: SmallRoad, **changed: Artifact) -> dict[str, bool | None]:
    return {line.says: line.holds for line in checklist({**road.artifacts, **changed})}


def test_each_line_of_the_checklist_follows_the_manifests(road: SmallRoad) -> None:
    scores, model = road.artifacts["scores"], road.artifacts["model"]
    said = lines(road)
    assert said["Every artifact was made from the ones shown here"] is True
    assert said["Similarities are fp32"] is True and said["Every row was scored"] is True
    assert said["Benchmark files are the official ones, by count and digest"] is False
    finite = "No step was skipped for values that are not finite"
    assert said[finite] is None, "this model's manifest does not say"

    def meta(**changes: Any) -> Artifact:
        return altered(scores, meta=json.loads(json.dumps(scores.meta)) | changes)

    other = {"before": {"activation": "quick_gelu"}, "after": {"activation": "gelu"}}
    for changed, says in (
        ({"scores": altered(scores, inputs={"model": "another"})}, "Every artifact was made from the ones shown here"),
        ({"model": altered(model, git={"commit": "f" * 40, "dirty": False})}, "One commit made everything"),
        ({"model": altered(model, git={"commit": "f" * 40, "dirty": True})}, "No file of that commit was changed"),
        ({"model": altered(model, packages={"torch": "0.1"})}, "One version of each package made everything"),
        ({"model": altered(model, meta=model.meta | {"not_finite": 2})}, finite),
        ({"scores": meta(models=other)}, "All models compute one activation, recorded with their weights"),
        ({"scores": meta(protocols={"a.b": "choice;bf16;d"})}, "Similarities are fp32"),
        ({"scores": meta(protocols={"a.b": "choice;bf16;d"})}, "Each set names what a tie counts as"),
    ):
        assert lines(road, **changed)[says] is False, says
