"""What a reader must know before believing the figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.stage import Inputs
from stages import verdicts
from stages.pages import percent, signed
from stages.report.config import Config

SOLVED = 0.95
"""A set of which a judge without pictures tells so many asks nothing of the picture."""

SHORT = 1e-4
"""Sum of a training's learning rates, AdamW's bound on what a weight moves, below which it changes nothing to speak of.

The paper's training has 4e-3: 8,085 steps with a peak of 1e-6.
"""


def notes(config: Config, inputs: Inputs, changed: Sequence[Mapping[str, Any]], same_start: bool | None) -> list[str]:
    """The notes, in the order of the page.

    Args:
        config: of the report.
        inputs: its artifacts.
        changed: rows whose change excludes none.
        same_start: whether the comparison beside the run began from the run's scores; None = there is none.
    """
    scores = inputs["scores"].meta
    found = [str(note) for note in scores["notes"]]
    subsets = {name: one for name, one in scores["aggregates"].items() if one["subset"]}
    for name, one in subsets.items():
        if one["n"] < one["of"]:
            found.append(f"{name}: {one['n']} of {one['of']} rows scored, the images of the others are missing.")
    found += verdicts.cut(scores["models"], {name: f"the model {name}" for name in scores["models"]})
    activations = {name: model.get("activation") for name, model in scores["models"].items()}
    if len(set(activations.values())) > 1:
        found.append(f"The models compute different activations: {activations}.")
    if same_start is False:
        found.append("report.comparison began from other scores than this run, so its rows are not shown beside it.")
    if scores["random_start"]:
        pairs = inputs["dataset"].meta["splits"].get("train", 0)
        found.append(
            f"The model started from random weights: before training it only guesses, and {pairs:,} pairs are all it "
            "knows of pictures (a pretrained CLIP has seen hundreds of millions). A rise that is not above the level "
            "without pictures shows that it learned how negatives are worded. To fine-tune a pretrained CLIP: "
            "train.model, train.pretrained and assemble.tokenizer."
        )
    fell = [f"{row['name']} {signed(row['difference']['value'])}" for row in changed if row["difference"]["value"] < 0]
    found.append(f"Fell significantly: {', '.join(fell)}." if fell else "No set fell significantly.")
    solved = [
        f"{name} {percent(best['value'])} %"
        for name, one in subsets.items()
        if (best := verdicts.best_blind(one)) and best["value"] >= SOLVED
    ]
    if solved:
        found.append(
            f"A judge that never sees a picture solves {', '.join(solved)}: there the picture is not asked about."
        )
    seed = inputs["model"].manifest.config.get("seed")
    found.append(f"One training, seed {seed}: the intervals are for other images and texts, not for other seeds.")
    trained = inputs["model"].meta
    if trained.get("reach", SHORT) < SHORT:
        found.append(
            f"The learning rates of all {trained['steps']:,} steps add up to {trained['reach']:.1e}, about the most "
            "that a weight could move: too little to change a model. Raise train.lr or train.epochs."
        )
    if any(one["benchmark"] == "heldout" for one in subsets.values()):
        who = inputs["negatives"].meta.get("model", "one generator")
        found.append(
            f"Held-out negatives are by the generator of the training ones ({who}): its traits are known here."
        )
    if config.description:
        found.append(
            f"The recipe says of itself: “{config.description}” Where it does not say on what its settings were tuned, "
            "they may have been tuned on sets like these, which flatters the scores."
        )
    return found
