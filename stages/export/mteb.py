"""A run's scores in the form of mteb's result files, which its leaderboard tools and `mteb.load_results` read.

    <folder>/<model>/<revision>/model_meta.json, <Task>.json

A file is {task_name, dataset_revision, mteb_version, evaluation_time, kg_co2_emissions, scores: {test: [{<metrics>,
main_score, hf_subset, languages}]}}. Source: TaskResult in mteb/results/task_result.py of embeddings-benchmark/mteb.

Only tasks that are the same rows under the same rule: its SugarCrepe, Winoground and two sets of ARO. Its zero-shot
tasks ask with other prompts, its order sets hold other foils. As mteb did not measure, `mteb_version` is null, and
`dataset_revision` names our protocols in place of a commit of its copy of the data.
"""

import json
from pathlib import Path
from typing import Any

from pipeline import tables
from pipeline.artifact import Artifact, digest
from pipeline.errors import UserError

TASKS: dict[str, tuple[str, dict[str, str]]] = {
    "SugarCrepe": ("text_acc", {"text_acc": "sugarcrepe.micro"}),
    "AROVisualAttribution": ("text_acc", {"text_acc": "aro.vg_attribution.micro"}),
    "AROVisualRelation": ("text_acc", {"text_acc": "aro.vg_relation.micro"}),
    "Winoground": (
        "accuracy",
        {"text_acc": "winoground.text", "image_acc": "winoground.image", "accuracy": "winoground.group"},
    ),
}
"""Its task -> its main score, and its metric -> our aggregate."""


def export(scores: Artifact, start: dict[str, Any], run: str, target: Path) -> int:
    """Write a folder of result files for the model a run started from and the one it trained.

    Args:
        scores: the scores artifact.
        start: `model` and `pretrained` of the start.
        run: name of the run, which is what the trained model is called.
        target: folder; files of the same names are overwritten.

    Returns how many tasks were written, of both models together. Raises UserError when there is none: the scores are of
    other files than the official ones, or none of TASKS was measured whole.
    """
    aggregates: dict[str, dict[str, Any]] = scores.meta["aggregates"]
    whole = {name: one for name, one in aggregates.items() if scores.meta["official"] and 0 < one["n"] == one["of"]}
    names = {"before": f"{Path(start['model']).name}-{start.get('pretrained') or 'none'}", "after": run}
    written = 0
    for side, model in names.items():
        revision = scores.manifest.inputs["model"] if side == "after" else "start"
        folder = target / _folder(f"degla/{model}") / revision
        for task, (main, metrics) in TASKS.items():
            if not all(name in whole for name in metrics.values()):
                continue
            found = {metric: whole[name][side]["value"] for metric, name in metrics.items()}
            told = found | {"main_score": found[main], "hf_subset": "default", "languages": ["eng-Latn"]}
            _write(
                folder / f"{task}.json",
                {
                    "task_name": task,
                    "dataset_revision": f"degla-{_revision(scores, metrics)}",
                    "mteb_version": None,
                    "evaluation_time": None,
                    "kg_co2_emissions": None,
                    "scores": {"test": [told]},
                },
            )
            _write(folder / "model_meta.json", {"name": f"degla/{model}", "revision": revision})
            written += 1
    if not written:
        raise UserError(
            "export",
            f"no score of run {run!r} is one of mteb's tasks",
            f"{', '.join(TASKS)}, measured whole on the official files",
            "set evaluate.root and evaluate.benchmarks",
        )
    return written


def _revision(scores: Artifact, metrics: dict[str, str]) -> str:
    """Digest of how the rows behind a task were measured."""
    benchmark = next(iter(metrics.values())).partition(".")[0]
    return digest({name: how for name, how in scores.meta["protocols"].items() if name.startswith(f"{benchmark}.")})


def _folder(model: str) -> str:
    return model.replace("/", "__").replace(" ", "_")


def _write(path: Path, content: dict[str, Any]) -> None:
    tables.write_text(path, json.dumps(content, indent=2) + "\n")
