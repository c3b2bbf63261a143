"""Pretrain the demo's starting CLIP by degla's own stages and write it, half precision, to data/starting_clip.

Run: python scripts/train_starting_clip.py [--out FOLDER]     (recipe data/recipes/starting_clip.yaml; resumes when
killed; about a quarter of an hour of one core). `--only-card FOLDER` takes a trained student and writes model and card.
"""

import argparse
import json
import shutil
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import load_file, save_file

from flows import progress
from pipeline import clip
from pipeline.clip import CARD, CONFIG, WEIGHTS
from stages.evaluate import Config as Evaluate
from stages.evaluate.measure import measure
from stages.road import Run
from stages.world.datasets import write_benchmarks

ROOT = Path(__file__).resolve().parent.parent
RUN = "starting_clip"
README = """# The built-in world's starting CLIP

A small open_clip model ({parameters:.1f} M parameters, most of them CLIP's vocabulary; OpenAI's ResNet in small, whose
attention pool keeps what is where) pretrained with the plain CLIP objective on the wide scenes of the built-in world:
`python scripts/train_starting_clip.py`, recipe `data/recipes/starting_clip.yaml`, seed 42, one thread. Weights
are stored in half precision.

It is what the demo fine-tunes, as the real pipeline fine-tunes OpenAI's: it names what is in an image and hardly knows
which word belongs to which thing, nor what stands where. Per cent right on the built-in evaluation sets, with 95 %
intervals, as that script measured:

| score | per cent right | chance | n |
|---|---|---|---|
{rows}
"""


def trained() -> Path:
    run = Run.open(RUN)
    for name in ("ingest", "generate", "assemble", "train"):
        made = run.make(name, partial(progress.shown, name))
    return made.artifact.path / "student"


def write(student: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, CARD):
        shutil.copy(student / name, out / name)
    weights = load_file(student / WEIGHTS)
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    save_file(halves, out / WEIGHTS)
    with TemporaryDirectory() as folder:
        write_benchmarks(Path(folder), 150, 42)
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
    parser.add_argument("--only-card", type=Path, help="folder of a trained student")
    options = parser.parse_args()
    write(options.only_card or trained(), options.out)


if __name__ == "__main__":
    main()
