"""One training step against a plain implementation of the released step, alternating in one process.

    python benchmarks/train_step.py --captions captions.txt [--batch 8] [--rounds 5] [--device cuda --precision bf16]

Both train ViT-B/32 from the same random weights on the same images and real captions, each with 4 negatives of its
own length. The released step, as its code has it: texts of 77 tokens, tokenised while loading; the teacher on the same
padded texts under no_grad; AdamW as torch makes it by default; the moving average parameter by parameter in Python.
First the loss and every gradient of the two are compared; a benchmark of something else would be worthless.
"""

import argparse
import copy
import csv
import platform
import random
import statistics
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline import clip
from stages.train.batches import Batch
from stages.train.config import Config, Loss
from stages.train.loop import Training
from stages.train.losses import Embeddings, base_loss, distill_loss, igc_loss, tgc_loss
from stages.train.objective import Objective

K = 4


def texts_of(captions: Path, batch: int, seed: int) -> tuple[list[str], list[list[str]]]:
    """Captions of a CSV file (image, caption), and for each K edits of it that keep most of its words."""
    with captions.open(encoding="utf-8") as handle:
        rows = [row["caption"] for row in csv.DictReader(handle)]
    draw = random.Random(seed)
    chosen = draw.sample(rows, batch)
    negatives = []
    for caption in chosen:
        edits = []
        for kind in range(K):
            words = caption.split()
            a, b = sorted(draw.sample(range(len(words)), 2)) if len(words) > 1 else (0, 0)
            if kind % 2:
                words[b] = draw.choice(draw.choice(rows).split())
            else:
                words[a], words[b] = words[b], words[a]
            edits.append(" ".join(words))
        negatives.append(edits)
    return chosen, negatives


class Released:
    """The released step, plainly."""

    def __init__(self, model: nn.Module, config: Config, device: str) -> None:
        import open_clip

        self.student, self.teacher = model.train(), copy.deepcopy(model).eval()
        self.config, self.device = config, device
        self.tokenizer = open_clip.get_tokenizer("ViT-B-32")
        decayed = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
        plain = [parameter for parameter in model.parameters() if parameter.ndim < 2]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps)

    def tokens(self, captions: list[str], negatives: list[list[str]]) -> Tensor:
        """[N, 77]: the captions, then their negatives one after the other."""
        texts = [*captions, *(text for each in negatives for text in each)]
        return torch.cat([self.tokenizer([text]) for text in texts]).to(self.device)

    def loss(self, image_BCHW: Tensor, tokens_NL: Tensor) -> Tensor:
        """The four terms on padded texts."""
        student = self.embed(self.student, image_BCHW, tokens_NL)
        with torch.no_grad():
            teacher = self.embed(self.teacher, image_BCHW, tokens_NL)
        loss, scale = self.config.objective, self.student.logit_scale.exp()
        terms = loss.base * base_loss(student, scale) + loss.distill * distill_loss(student, teacher)
        return terms + loss.igc * igc_loss(student, scale) + loss.tgc * tgc_loss(student, teacher, loss.tgc_scale)

    def embed(self, model: Any, image_BCHW: Tensor, tokens_NL: Tensor) -> Embeddings:
        """What a model says, at 77 tokens."""
        precision = {"fp32": None, "bf16": torch.bfloat16}[self.config.precision]
        with torch.autocast(self.device, dtype=precision, enabled=precision is not None):
            image_BD = F.normalize(model.encode_image(image_BCHW).float(), dim=-1)
            text_ND = F.normalize(self.encode_text(model, tokens_NL).float(), dim=-1)
        count = len(image_BD)
        type_BK = torch.arange(K, device=self.device).expand(count, K)
        none = torch.zeros(count, dtype=torch.bool, device=self.device)
        no_texts = image_BD.new_zeros(count, 0, image_BD.shape[1])
        return Embeddings(
            image_BD,
            text_ND[:count],
            text_ND[count:].unflatten(0, (count, K)),
            torch.zeros_like(image_BD),
            torch.zeros_like(image_BD),
            image_BD.new_zeros(count, 1 + K),
            no_texts,
            no_texts,
            no_texts,
            type_BK,
            none,
            none,
            none[:, None][:, :0],
        )

    def encode_text(self, model: Any, tokens_NL: Tensor) -> Tensor:
        """All texts at once."""
        found: Tensor = model.encode_text(tokens_NL)
        return found

    def step(self, image_BCHW: Tensor, captions: list[str], negatives: list[list[str]]) -> float:
        """As its code has it."""
        return self.update(image_BCHW, self.tokens(captions, negatives))

    def update(self, image_BCHW: Tensor, tokens_NL: Tensor) -> float:
        """Optimizer and moving average."""
        self.optimizer.zero_grad()
        loss = self.loss(image_BCHW, tokens_NL)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            self.student.logit_scale.clamp_(0, 4.6052)
            for mine, theirs in zip(self.student.parameters(), self.teacher.parameters(), strict=True):
                theirs.data = self.config.objective.ema * theirs.data + (1 - self.config.objective.ema) * mine.data
        return loss.item()


class Ours:
    """Our step, as training runs it; tokens come with the dataset."""

    def __init__(self, model: nn.Module, config: Config, device: str) -> None:
        self.device, self.tokenize, self.pooled = device, clip.tokenizer("ViT-B-32"), clip.pooling(model)
        self.training = Training(config, Objective(config.objective, model, config.precision), 10_000, device)

    def batch(self, image_BCHW: Tensor, captions: list[str], negatives: list[list[str]]) -> Batch:
        """What the loader gives."""
        tokens = clip.pad(self.tokenize([*captions, *(text for each in negatives for text in each)]))
        type_BK, none = torch.arange(K).repeat(len(captions), 1), torch.zeros(len(captions), dtype=torch.bool)
        return Batch(image_BCHW, tokens, type_BK, image_BCHW[:0], none, none)

    def located(self, batch: Batch) -> Batch:
        """The tree of its texts grown, as the loader does it, and all but the images moved to the device."""
        return batch.located(self.pooled).map(partial(torch.Tensor.to, device=self.device))

    def step(self, batch: Batch) -> float:
        """As `Training` does it, with the loader's share of the texts' work."""
        self.training.step([self.located(batch)])
        return float(self.training.fetch()[-1]["loss"])


def timed(device: str, clock: Callable[[], float], work: Any, *arguments: Any) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    begun = clock()
    work(*arguments)
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - begun


def peak(device: str, work: Any, *arguments: Any) -> float:
    """GiB of GPU memory at the worst moment of one step."""
    if device != "cuda":
        return 0.0
    torch.cuda.reset_peak_memory_stats()
    work(*arguments)
    return torch.cuda.max_memory_allocated() / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=Path, required=True, help="CSV file with a column caption")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--cpu-time", action="store_true", help="CPU seconds, for a machine that others use as well")
    arguments = parser.parse_args()
    device, clock = arguments.device, time.process_time if arguments.cpu_time else time.perf_counter

    config = Config(precision=arguments.precision, batch=arguments.batch, warmup=0, objective=Loss())
    start = clip.load("ViT-B-32", None, seed=0, device=device).model
    ours, released = Ours(copy.deepcopy(start), config, device), Released(copy.deepcopy(start), config, device)
    draw = torch.Generator().manual_seed(0)
    image_BCHW = torch.randn(arguments.batch, 3, 224, 224, generator=draw).to(device)
    captions, negatives = texts_of(arguments.captions, arguments.batch, seed=0)
    batch = ours.batch(image_BCHW, captions, negatives)

    loss = released.loss(image_BCHW, released.tokens(captions, negatives))
    loss.backward()
    mine = ours.training.objective.forward_backward([ours.located(batch)])["loss"].item()
    norm = torch.nn.utils.get_total_norm([p.grad for p in released.student.parameters()]).item()
    gaps = [
        (a.grad - b.grad).norm().item()
        for a, b in zip(ours.training.objective.student.parameters(), released.student.parameters(), strict=True)
    ]
    apart = sum(gap**2 for gap in gaps) ** 0.5 / norm
    print(f"loss ours {mine:.6f}, released {loss.item():.6f}; gradients differ by {apart:.1e} of their norm")
    assert abs(mine - loss.item()) < (1e-4 if arguments.precision == "fp32" else 2e-2) * abs(mine)
    assert apart < (1e-4 if arguments.precision == "fp32" else 5e-2)

    ours.step(batch), released.step(image_BCHW, captions, negatives)  # warm
    times: dict[str, list[float]] = {"ours": [], "released": []}
    for number in range(arguments.rounds):
        captions, negatives = texts_of(arguments.captions, arguments.batch, seed=number + 1)
        batch = ours.batch(image_BCHW, captions, negatives)
        times["ours"].append(timed(device, clock, ours.step, batch))
        times["released"].append(timed(device, clock, released.step, image_BCHW, captions, negatives))
    memory = {
        "ours": peak(device, ours.step, batch),
        "released": peak(device, released.step, image_BCHW, captions, negatives),
    }

    where = (
        torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads, {platform.machine()}"
    )
    print(f"{date.today()}, {where}, torch {torch.__version__}, batch {arguments.batch}, {arguments.precision}")
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        line = f"{name:9} {middle:8.3f} {'CPU ' * arguments.cpu_time}s/step   {arguments.batch / middle:8.2f} pairs/s"
        print(line + (f"   {memory[name]:.1f} GiB" if device == "cuda" else ""))
    ratios = [there / here for here, there in zip(times["ours"], times["released"], strict=True)]
    print(f"ratio     {statistics.median(ratios):.2f} (each round: {', '.join(f'{ratio:.2f}' for ratio in ratios)})")


if __name__ == "__main__":
    main()
