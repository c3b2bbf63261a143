"""Pretrain the demo's starting CLIP and write it, half precision, to data/starting_clip.

Run: python scripts/train_starting_clip.py [--out FOLDER]     (about half an hour of one core). The image tower is
trained with supervision on scenes of the built-in world, then degla's own stages train the text tower against it, as in
LiT (Zhai et al. 2022): recipe data/recipes/starting_clip.yaml. `--image-tower FOLDER` takes a model's image tower, e.g.
the committed one; `--only-card FOLDER` takes a trained student and writes model and card.
"""

import argparse
import json
import shutil
import zlib
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from flows import progress
from pipeline import clip
from pipeline.clip import CARD, CONFIG, WEIGHTS, Clip, tuning
from stages.evaluate import Config as Evaluate
from stages.evaluate.measure import measure
from stages.road import Run
from stages.world.datasets import write_benchmarks
from stages.world.scenes import WIDE, Scene, draw, make_scene

ROOT = Path(__file__).resolve().parent.parent
RUN, SEED = "starting_clip", 42
SCENES, BATCH = 40_000, 128
PLACE, BOUND = 6.0, 2.0
PHASES = ((0.5, 5_000, 1.5e-3), (1.25, 3_000, 1e-3))
"""Weight of sizes and textures, steps, highest learning rate. Sizes and textures are what an image shows least of: with
the larger weight from the start colours are learned late, with the smaller one alone sizes and textures hardly.
"""
README = """# The built-in world's starting CLIP

A small open_clip model ({parameters:.1f} M parameters, most of them CLIP's vocabulary; OpenAI's ResNet in small).
`python scripts/train_starting_clip.py` makes it in two stages, as LiT's models are made (Zhai et al. 2022):

1. The image tower, with supervision, on {scenes:,} wide scenes of the built-in world: its embedding is fitted to a code
   of what is in the image, which colour, size and texture belongs to which shape, and where each is.
2. The text tower against the locked image tower, with the plain CLIP objective on 96,000 captions: recipe
   `data/recipes/starting_clip.yaml`, seed {seed}, one thread. Weights are stored in half precision.

It is what the demo fine-tunes, as the real pipeline fine-tunes OpenAI's. The image embedding holds which word belongs
to which thing and what stands where; the text tower hears a bag of words, so that image and text agree on neither.
That is what was found of OpenAI's CLIP (Koishigarina et al. 2025: a bag of words across the modalities, not within
one), and what hard negatives can change. Per cent right on the built-in evaluation sets, with 95 % intervals, as that
script measured:

| score | per cent right | chance | n |
|---|---|---|---|
{rows}
"""


def trained(image_tower: Path | None) -> Path:
    """The student's folder; `image_tower` is the model whose image tower it has, None = one that is trained first."""
    folder = Run.open(RUN, recipe=RUN).folder
    start = _with_new_text_tower(image_tower or _with_image_tower(folder / "image_tower"), folder / "start")
    run = Run.open(RUN, (f"train.model={start}",), recipe=RUN)
    for name in ("ingest", "generate", "assemble", "train"):
        made = run.make(name, partial(progress.shown, name))
    return made.artifact.path / "student"


def _with_image_tower(out: Path) -> Path:
    """A model whose image tower says what is where; each phase is kept under `out`, so that a killed call resumes.

    Each embedding is fitted, by cosine, to the sum of one random vector for every fact of the scene.
    """
    last = out / str(len(PHASES))
    if (last / WEIGHTS).exists():
        return last
    model = clip.load("data/clip_small", seed=SEED)
    tower: Any = model.model.visual
    with torch.no_grad():
        # As open_clip draws them, every head looks at all places alike, and what is where is averaged out.
        tower.attnpool.positional_embedding.mul_(16)
        tower.attnpool.q_proj.weight.mul_(3)
        tower.attnpool.k_proj.weight.mul_(3)
    with ProcessPoolExecutor() as processes:
        images = np.stack(list(processes.map(_image, range(SCENES), chunksize=250)))
    for number, (fine, steps, rate) in enumerate(PHASES, 1):
        phase = out / str(number)
        if (phase / WEIGHTS).exists():
            model = clip.load(str(phase))
            continue
        facts_ND = torch.stack([_facts(_scene(index), fine) for index in range(SCENES)])
        _fit(model, images, torch.nn.functional.normalize(facts_ND, dim=1), steps, rate)
        clip.save(model, phase)
    return last


def _fit(model: Clip, images: np.ndarray, target_ND: Tensor, steps: int, rate: float) -> None:
    tower: Any = model.model.visual
    decayed = tuning.decayed(tower)
    others = [weight for weight in tower.parameters() if all(weight is not one for one in decayed)]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), eps=1e-6)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.02, cycle_momentum=False)
    order = torch.Generator().manual_seed(SEED)
    model.model.train()
    with progress.shown("image tower") as bar:
        for step in range(steps):
            rows = torch.randint(SCENES, (BATCH,), generator=order)
            loss = 1 - (_embedded(model, images[rows.numpy()]) * target_ND[rows]).sum(1).mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            bar(f"steps, loss {loss.item():.3f}", step + 1, steps)
    model.model.eval()


def _embedded(model: Clip, images: np.ndarray) -> Tensor:
    image_BCHW = torch.from_numpy(images).permute(0, 3, 1, 2)
    return clip.encode_image(model.model, clip.normalise(model, image_BCHW))


def _scene(index: int) -> Scene:
    return make_scene(f"train/wide/{SEED}/{index}", WIDE)


def _image(index: int) -> np.ndarray:
    return np.asarray(draw(_scene(index)))


def _facts(scene: Scene, fine_weight: float) -> Tensor:
    """The sum of the codes of all that is so in a scene.

    Binding and place weigh most: they are small in an image and would otherwise drown in what is named.
    """
    code_D = torch.zeros(128)
    for one in scene.things:
        code_D += _code(one.shape) + _code(one.colour) + BOUND * _code(one.colour, one.shape)
        for fine in (one.texture, one.size):
            code_D += fine_weight * (_code(fine) + _code(fine, one.shape))
        for word in (one.shape, one.colour):
            code_D += PLACE * ((one.x - 0.5) * _code(word, "x") + (one.y - 0.5) * _code(word, "y"))
    for a, one in enumerate(scene.things):
        for b in set(range(len(scene.things))) - {a}:
            for relation in sorted(scene.relations(a, b) & {"inside", "around", "front", "behind"}):
                code_D += _code(relation) + 2 * _code(one.shape, relation)
    kinds = [(one.colour, one.shape) for one in scene.things]
    for kind in dict.fromkeys(kinds):
        code_D += _code(f"{kinds.count(kind)} alike")
    return code_D


@cache
def _code(*fact: str) -> Tensor:
    return torch.randn(128, generator=torch.Generator().manual_seed(zlib.crc32(" ".join(fact).encode())))


def _with_new_text_tower(model: Path, out: Path) -> Path:
    """The model with a random text tower, whose positions are sinusoids (Vaswani et al. 2017).

    open_clip draws positions so small that the tower hears a bag of words at first. Four hundred million captions teach
    it order all the same; a hundred thousand do not, and fine-tuning then has nothing to build on.
    """
    known, fresh = clip.load(str(model)), clip.load("data/clip_small", seed=SEED)
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
    (out / "README.md").write_text(
        README.format(parameters=parameters, scenes=SCENES, seed=SEED, rows="\n".join(rows)), encoding="utf-8"
    )
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
