"""The WiSE-FT curve: what a mixture of start and trained weights scores, from none of the training to all of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flows import road
from pipeline.artifact import Store
from pipeline.errors import UserError
from pipeline.stage import Progress

SHOWN = ("composition", "sugarcrepe.macro7", "valse.mean_files", "zeroshot.mean", "retrieval.mean_r1")


def curve(store: Store, run: str, alphas: Sequence[float], progress: Progress) -> list[dict[str, Any]]:
    """Score (1 - alpha) * start + alpha * trained for each alpha, on the benchmark files of a run.

    Cheap: one pass over the benchmarks per alpha, no blind judges, no intervals. Also written to
    `<run>/interpolation/curve.json` and `curve.svg`.

    Raises:
        UserError: the run has no model, or no folder of benchmarks.
    """
    from stages import figures
    from stages.evaluate import evaluate_model
    from stages.model_exports import mixed

    model, pairs = store.linked(run, "model"), store.linked(run, "pairs")
    if model is None or pairs is None:
        raise UserError("curve", f"run {run!r} has no model", "a trained run", f"degla run {run} --until train")
    config = road.run_recipe(store, run, "").evaluate
    root = config.root or pairs.path / "benchmarks"
    official = config.official if config.official is not None else config.root is not None
    found = []
    for place, alpha in enumerate(alphas):
        with TemporaryDirectory() as folder:
            mixed(model, alpha, Path(folder))
            _, aggregates = evaluate_model(
                folder, root=root, official=official, with_blind=False, resamples=100, device=config.device
            )
        found.append({"alpha": alpha} | {name: one["model"]["value"] for name, one in aggregates.items()})
        progress("alphas", place + 1, len(alphas))
    target = store.run(run) / "interpolation"
    target.mkdir(parents=True, exist_ok=True)
    (target / "curve.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if all(row.get(name) is not None for row in found for name in ("composition", "zeroshot.mean")):
        points = [
            (f"alpha {row['alpha']:g}", row["zeroshot.mean"], row["composition"], 0.0, 0.0, "degla", True)
            for row in found
        ]
        (target / "curve.svg").write_text(figures.pareto(points, "zeroshot.mean", "composition"), encoding="utf-8")
    return found
