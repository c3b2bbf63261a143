"""A run's scores in the form of CLIP_benchmark's result files, which its `build` command and others' tables read.

One file per set and model: {dataset, model, pretrained, task, metrics, language}. Source: clip_benchmark/cli.py of
LAION-AI/CLIP_benchmark. Its names are used where it has the same set under the same rule, else `degla/<set>`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline import tables
from pipeline.artifact import Artifact

ITS_NAMES = {
    "coco_retrieval": "mscoco_captions", "flickr30k_retrieval": "flickr30k",
    "flowers102": "flowers", "aircraft": "fgvc_aircraft", "imagenet": "imagenet1k",
}  # fmt: skip
SAME_NAMES = ("cifar10", "cifar100", "food101", "pets", "cars", "dtd")
"""Caltech101 and SUN397 are other splits there: those keep our names."""

MEASURES = {
    "top1": "acc1", "top5": "acc5", "mean_per_class": "mean_per_class_recall",
    **{f"t2i_r{k}": f"image_retrieval_recall@{k}" for k in (1, 5, 10)},
    **{f"i2t_r{k}": f"text_retrieval_recall@{k}" for k in (1, 5, 10)},
}  # fmt: skip
"""Last part of our name -> its name."""


def export(scores: Artifact, start: dict[str, Any], run: str, target: Path) -> int:
    """Write a folder of result files for the model a run started from and the one it trained.

    Args:
        scores: the scores artifact.
        start: `model` and `pretrained` of the start.
        run: name of the run, which is what the trained model is called.
        target: folder; files of the same names are overwritten.

    Returns how many were written.
    """
    written = 0
    models = {"before": (start["model"], start.get("pretrained") or ""), "after": (start["model"], run)}
    for side, (model, pretrained) in models.items():
        for dataset, (task, metrics) in _results(scores.meta["aggregates"], side):
            found = {"dataset": dataset, "model": model, "pretrained": pretrained, "task": task, "metrics": metrics}
            name = f"{dataset.replace('/', '_')}_{side}.json"
            tables.write_text(target / name, json.dumps(found | {"language": "en"}) + "\n")
            written += 1
    return written


def _results(aggregates: dict[str, dict[str, Any]], side: str) -> Iterator[tuple[str, tuple[str, dict[str, float]]]]:
    """Its data set -> its task and metrics, of all that were scored."""
    found: dict[str, tuple[str, dict[str, float]]] = {}
    for name, one in aggregates.items():
        told = one.get(side)
        if told is None or told["value"] is None:
            continue
        benchmark, last = name.partition(".")[0], name.rpartition(".")[2]
        if last in MEASURES:
            own = name.split(".")[1] if benchmark == "zeroshot" else benchmark
            task = "zeroshot_classification" if benchmark == "zeroshot" else "zeroshot_retrieval"
            metric, value = MEASURES[last], told["value"]
        elif one["subset"] and one["measure"] == "correct" and one["says"] == "accuracy":
            own, task, metric = name, "image_caption_selection", "acc"
            value = told.get("ties", {}).get(
                "right", told["value"]
            )  # its argmax takes the first of equals, the caption
        else:
            continue
        found.setdefault(_its_name(own), (task, {}))[1][metric] = value
    yield from found.items()


def _its_name(own: str) -> str:
    if own.startswith("sugarcrepe."):
        return f"sugar_crepe/{own.partition('.')[2]}"
    return ITS_NAMES.get(own, own if own in SAME_NAMES else f"degla/{own.replace('.', '/')}")
