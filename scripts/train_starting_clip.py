"""Pretrain the demo's starting CLIP by degla's own stages and write it, half precision, to data/starting_clip.

Run: python scripts/train_starting_clip.py [--out FOLDER]     (recipe data/recipes/starting_clip.yaml; resumes when
killed; about twenty minutes of one core). Both towers are trained, then another text tower against the image tower,
which is locked (LiT, Zhai et al. 2022). `--image-tower FOLDER` takes a model's image tower and trains the text tower
alone; `--only-card FOLDER` takes a trained student and writes model and card.
"""

import argparse
import json
import shutil
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file

from flows import progress
from pipeline import clip
from pipeline.clip import CARD, CONFIG, WEIGHTS
from stages.evaluate import Config as Evaluate
from stages.evaluate.measure import measure
from stages.road import Run
from stages.world.datasets import write_benchmarks

ROOT = Path(__file__).resolve().parent.parent
RUN, SEED = "starting_clip", 42
README = """# The built-in world's starting CLIP

A small open_clip model ({parameters:.1f} M parameters, most of them CLIP's vocabulary; OpenAI's ResNet in small, whose
attention pool keeps what is where) pretrained with the plain CLIP objective on the wide scenes of the built-in world,
first both towers, then a new text tower against the locked image tower: `python scripts/train_starting_clip.py`, recipe
`data/recipes/starting_clip.yaml`, seed 42, one thread. Weights are stored in half precision.

It is what the demo fine-tunes, as the real pipeline fine-tunes OpenAI's: it names what is in an image and hardly knows
which word belongs to which thing, nor what stands where. Per cent right on the built-in evaluation sets, with 95 %
intervals, as that script measured:

| score | per cent right | chance | n |
|---|---|---|---|
{rows}
"""


def trained(image_tower: Path | None) -> Path:
    """The student's folder; `image_tower` is the model whose image tower it has, None = one that is trained first."""
    both = Run.open(RUN, recipe=RUN)
    start = _with_new_text_tower(image_tower or _student(both), both.folder / "new_text_tower")
    settings = (f"train.model={start}", "train.lock_image=true", "train.epochs=2")
    return _student(Run.open(f"{RUN}_text", settings, recipe=RUN))


def _student(run: Run) -> Path:
    for name in ("ingest", "generate", "assemble", "train"):
        made = run.make(name, partial(progress.shown, name))
    return made.artifact.path / "student"


def _with_new_text_tower(model: Path, out: Path) -> Path:
    """The model with a random text tower, whose positions are sinusoids (Vaswani et al. 2017).

    open_clip draws positions so small that the tower hears a bag of words at first. Four hundred million captions teach
    it order all the same; a hundred thousand do not, and fine-tuning then has nothing to build on.
    """
    known, fresh = clip.load(str(model)), clip.load(Run.open(RUN, recipe=RUN).recipe.train.model, seed=SEED)
    weights, other = known.model.state_dict(), fresh.model.state_dict()
    with torch.no_grad():
        for name, tensor in weights.items():
            if not name.startswith("visual."):
                tensor.copy_(other[name])
        length, width = weights["positional_embedding"].shape
        angle_LF = torch.arange(length)[:, None] / 100 ** (torch.arange(width // 2) / (width // 2))
        weights["positional_embedding"].copy_(0.1 * torch.cat([angle_LF.sin(), angle_LF.cos()], dim=1))
    clip.save(known, out)
    return out


def write(student: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, CARD):
        shutil.copy(student / name, out / name)
    weights = load_file(student / WEIGHTS)
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    save_file(halves, out / WEIGHTS)
    with TemporaryDirectory() as folder:
        write_benchmarks(Path(folder), 150, SEED)
        loads = {"model": partial(clip.load, str(out))}
        scores = measure(loads, Evaluate(root=Path(folder), official=False)).aggregates
    rows = []
    for name, one in scores.items():
        if one["headline"] or one["subset"]:
            value, low, high = (100 * one["model"][key] for key in ("value", "low", "high"))
            chance = "" if one["chance"] is None else f"{100 * one['chance']:.0f}"
            rows.append(f"| {name} | {value:.1f} ({low:.1f} to {high:.1f}) | {chance} | {one['n']} |")
    parameters = sum(tensor.numel() for tensor in weights.values()) / 1e6
    (out / "README.md").write_text(README.format(parameters=parameters, rows="\n".join(rows)), encoding="utf-8")
    print(json.dumps(rows, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "data" / RUN)
    parser.add_argument("--image-tower", type=Path, help="model whose image tower is taken as it is")
    parser.add_argument("--only-card", type=Path, help="folder of a trained student")
    options = parser.parse_args()
    write(options.only_card or trained(options.image_tower), options.out)


if __name__ == "__main__":
    main()
