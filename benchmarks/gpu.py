"""A GPU at work: a training step of ours against the released one, what feeds it, and a language model's requests.

    pip install torch torchvision open_clip_torch pyarrow pydantic pyyaml      # all that a bare machine needs
    PYTHONPATH=. python benchmarks/gpu.py [--batch 256 1024] [--precision bf16]

Less than eight minutes on one GPU; no weights, images or captions are fetched: ViT-B/32 from random weights, stand-in
images of 640 x 480, captions of 8 to 16 tokens with four negatives that change a word or two. First loss and gradients
of the steps are compared, in fp32; then, alternating, in the precision asked for:

released   texts of 77 tokens, each type of negatives encoded by itself, plain AdamW, moving average in Python
padded     the same with all texts at once
cut        our step, texts as long as the longest of the batch
tree       our step as it is: texts share their common beginnings
compiled   the same with `train.compile`: both towers compiled, attention over the tree in one kernel

Growing the tree is the loader's work and not in these times. torch counts FLOP as each step runs (matrix products,
convolutions, attention). MFU is these over the time and the peak; "of the limit" is the time that the tree's FLOP
would take at the peak over the time of the step. Peak and bandwidth are the data sheet's where the GPU is known, or as
told, else those of a large matrix product and of a copy in this run. Where vLLM is installed, an 8B model's shape
answers requests (gpu_engine.py). All figures end in one table, with hardware and date.
"""

import argparse
import copy
import gc
import importlib.util
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu_engine
from benchmarks.loader import picture, rows_of
from benchmarks.train_step import K, Ours, Released
from pipeline import clip
from pipeline.clip import prefix_tree, tuning
from pipeline.stage import silent
from stages.train.batches import Batch, Batches, load
from stages.train.config import Config
from stages.train.pictures import Images, size_of

PEAKS = {"H200": 989e12, "H100": 989e12, "GH200": 989e12, "B200": 2250e12, "A100": 312e12, "L40S": 362e12}
"""Dense bf16 FLOP/s by the data sheets (the SXM models), without sparsity."""

BANDWIDTHS = {"H200": 4.8e12, "H100": 3.35e12, "GH200": 4.0e12, "B200": 8.0e12, "A100": 2.04e12, "L40S": 0.864e12}
"""Bytes per second of the memory, likewise."""

MOST_S = 480.0
"""Seconds for all of it; what the language model has not answered by then is not measured."""


class Row(NamedTuple):
    """One kind of step: pairs per second, FLOP of a step, and the most memory it took, bytes (0 on a CPU)."""

    batch: int
    name: str
    pairs_per_s: float
    flop: float
    memory: int


class PerType(Released):
    """The released step, which encodes the captions and then each type of negatives."""

    def encode_text(self, model: Any, tokens_NL: Tensor) -> Tensor:
        """One call per type."""
        count = len(tokens_NL) // (1 + K)
        typed_BKL = tokens_NL[count:].unflatten(0, (count, K))
        found = [model.encode_text(typed_BKL[:, kind]) for kind in range(K)]
        return torch.cat([model.encode_text(tokens_NL[:count]), torch.stack(found, dim=1).flatten(0, 1)])


class Ready(Ours):
    """Our step on batches that the loader has made ready."""

    def __init__(self, model: nn.Module, config: Config, device: str) -> None:
        super().__init__(model, config, device)
        self.ready: dict[int, Batch] = {}

    def step(self, batch: Batch) -> float:
        """The first time a batch comes it is made ready."""
        if id(batch) not in self.ready:
            self.ready[id(batch)] = self.located(batch)
        self.training.step([self.ready[id(batch)]])
        return float(self.training.fetch()[-1]["loss"])


class Compiled(Ready):
    """Our step as `train.compile` has it."""

    def __init__(self, model: nn.Module, config: Config, device: str) -> None:
        super().__init__(model, config, device)
        for one in (self.training.objective.student, self.training.objective.teacher):
            tuning.speed_up(one, checkpoint_gradients=False, compiled=True)
        self.pooled = clip.pooling(self.training.objective.student)


class Cut(Ready):
    """Our step without sharing what texts begin with."""

    def step(self, batch: Batch) -> float:
        """As ours, for a text tower of which the tree knows nothing."""
        fits, prefix_tree.fits = prefix_tree.fits, lambda transformer: False
        try:
            return super().step(batch)
        finally:
            prefix_tree.fits = fits


def batch_of(count: int, size: tuple[int, int], seed: int) -> Batch:
    """Noise for images, and texts as random as they are long."""
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    captions = [[draw.randrange(1, 49_000) for _ in range(draw.randrange(8, 17))] for _ in range(count)]
    texts = list(captions)
    for caption in captions:
        for kind in range(K):
            text = list(caption)
            one, other = draw.sample(range(len(text)), 2)
            text[one], text[other] = text[other], text[one] if kind % 2 else draw.randrange(1, 49_000)
            texts.append(text)
    tokens_NL = clip.pad([[49_406, *text, 49_407] for text in texts])
    image_BCHW = torch.randn(count, 3, *size, generator=generator)
    none_B = torch.zeros(count, dtype=torch.bool)
    return Batch(image_BCHW, tokens_NL, torch.arange(K).repeat(count, 1), image_BCHW[:0], none_B, none_B)


def steps_of(model: nn.Module, config: Config, device: str) -> dict[str, Callable[[Batch], float]]:
    """Each kind of step as a function of a batch, its models made when it is asked for."""
    context = int(getattr(model, "context_length", 77))

    def released(kind: type[Released]) -> Callable[[Batch], float]:
        learner = kind(copy.deepcopy(model), config, device)

        def step(batch: Batch) -> float:
            pad = (0, context - batch.tokens_NL.shape[1])
            return learner.update(batch.image_BCHW, torch.nn.functional.pad(batch.tokens_NL, pad).to(device))

        return step

    makers: dict[str, Callable[[], Callable[[Batch], float]]] = {
        "released": lambda: released(PerType),
        "padded": lambda: released(Released),
        "cut": lambda: Cut(copy.deepcopy(model), config, device).step,
        "tree": lambda: Ready(copy.deepcopy(model), config, device).step,
    }
    if device == "cuda":
        makers["compiled"] = lambda: Compiled(copy.deepcopy(model), config, device).step
    return {name: _when_asked(make) for name, make in makers.items()}


def _when_asked(make: Callable[[], Callable[[Batch], float]]) -> Callable[[Batch], float]:
    made: list[Callable[[Batch], float]] = []

    def step(batch: Batch) -> float:
        if not made:
            made.append(make())
        return made[0](batch)

    return step


def compare(model: nn.Module, size: tuple[int, int], device: str, kind: type[Ours] = Ours) -> str:
    """Loss and gradients of the released step and of one of ours, in fp32; an error where they differ."""
    config, batch = Config(precision="fp32", warmup=0), batch_of(8, size, 0)
    batch = Batch(batch.image_BCHW.to(device), *list(vars(batch).values())[1:])
    released, ours = PerType(copy.deepcopy(model), config, device), kind(copy.deepcopy(model), config, device)
    context = int(getattr(model, "context_length", 77))
    padded = torch.nn.functional.pad(batch.tokens_NL, (0, context - batch.tokens_NL.shape[1])).to(device)
    theirs = released.loss(batch.image_BCHW, padded)
    theirs.backward()  # type: ignore[no-untyped-call]
    mine, theirs = ours.training.objective.forward_backward([ours.located(batch)])["loss"], theirs.detach()
    pairs = list(zip(ours.training.objective.student.parameters(), released.student.parameters(), strict=True))
    gap = torch.stack([(a.grad - b.grad).norm() for a, b in pairs if a.grad is not None and b.grad is not None]).norm()
    whole = torch.stack([b.grad.norm() for _, b in pairs if b.grad is not None]).norm()
    loss_gap, grad_gap = float((mine - theirs).abs() / theirs.abs()), float(gap / whole)
    apart = f"loss {float(mine):.6f} by {loss_gap:.1e} of it, gradients by {grad_gap:.1e} of their norm"
    assert loss_gap < 1e-4 and grad_gap < 1e-3, f"the steps differ: {kind.__name__.lower()} and released, {apart}"
    return f"{kind.__name__.lower()} equals released: apart in {apart}"


def waits(step: Callable[[Batch], float], batch: Batch) -> int | None:
    """How often a step of ours waited for the GPU, its own reading of the loss left out; None on a CPU."""
    if not torch.cuda.is_available():
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return max(0, sum("synchroniz" in str(one.message) for one in found) - 1)


def measure(steps: dict[str, Callable[[Batch], float]], batches: list[Batch], seconds: float, device: str) -> list[Row]:
    """Every kind of step on the same batches, each for so many seconds, one batch of each kind in turn."""
    count = len(batches[0].tokens_NL) // (1 + K)
    times: dict[str, list[float]] = {}
    flop, memory = dict.fromkeys(steps, 0.0), dict.fromkeys(steps, 0)
    for name, step in steps.items():
        try:
            for batch in batches:
                step(batch)  # models are made, kernels chosen, batches made ready
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            with FlopCounterMode(display=False) as counter:
                step(batches[0])
            flop[name] = float(counter.get_total_flops())
            if name == "compiled":  # which the counter cannot see into
                flop[name] = flop["tree"]
            memory[name] = torch.cuda.max_memory_allocated() if device == "cuda" else 0
            times[name] = []
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    begun = time.perf_counter()
    while times and (time.perf_counter() - begun < seconds * len(times) or not all(times.values())):
        for name, found in times.items():
            batch = batches[len(found) % len(batches)]
            started = time.perf_counter()
            steps[name](batch)  # ends with the loss, so with the GPU done
            found.append(time.perf_counter() - started)
    medians = {name: count / statistics.median(found) for name, found in times.items()}
    return [Row(count, name, medians.get(name, 0.0), flop[name], memory[name]) for name in steps]


def fed(model: clip.Clip, config: Config, folder: Path, count: int, workers: int, device: str) -> dict[str, float]:
    """Pairs per second of our step when the loader feeds it: images decoded each time, and kept."""
    names = []
    draw = random.Random(0)
    (folder / "images").mkdir()
    for number in range(count):
        names.append(f"{number:06}.jpg")
        (folder / "images" / names[-1]).write_bytes(picture(draw))
    rows, found = rows_of(folder / "images", names), {}
    for name in ("decoded each time", "kept"):
        images = Images(rows, model, "random")
        if name == "kept":
            images.keep(folder, max(1, workers), silent)
        ours = Ours(copy.deepcopy(model.model), config, device)
        batches = Batches(rows, images, min(config.batch, count), K, 1 if name != "kept" else 4, 0)
        parts_of = load(batches, 0, workers, 1, ours.pooled, pinned=device == "cuda")
        done, begun = 0, 0.0
        for parts in parts_of:
            ours.training.step([part.on(device, model) for part in parts])
            if done == 0:  # the loader's processes have started, kernels are chosen
                ours.training.fetch()
                begun = time.perf_counter()
            done += 1
        ours.training.fetch()
        found[name] = (done - 1) * batches.batch / (time.perf_counter() - begun)
    return found


def limits_of(device: str, precision: str, tflops: float | None, gbytes: float | None) -> tuple[float, float, str]:
    """FLOP and bytes per second that cannot be passed, and where the figures are from."""
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    known = next((one for one in PEAKS if one in name.split()), None)
    if tflops:
        peak, source = tflops * 1e12, "as told"
    elif known and precision == "bf16":
        peak, source = PEAKS[known], "data sheet"
    else:
        side = 8192 if device == "cuda" else 512
        a = torch.randn(side, side, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
        peak, source = 2 * side**3 / _best(lambda: (a @ a).sum().item()), f"a product of {side} x {side} matrices"
    if gbytes:
        bandwidth, whence = gbytes * 1e9, "as told"
    elif known:
        bandwidth, whence = BANDWIDTHS[known], "data sheet"
    else:
        x = torch.ones(2**30 if device == "cuda" else 2**24, device=device)
        bandwidth, whence = 2 * x.nbytes / _best(lambda: x.clone()[-1].item()), "a copy"
    told = f"limits: {peak / 1e12:,.3g} TFLOP/s ({source}), {bandwidth / 1e9:,.0f} GB/s ({whence})"
    return peak, bandwidth, told


def _best(work: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


def line(*cells: str) -> str:
    """A line of the table: what, rate, ratio, MFU, share of the limit, peak memory."""
    return f"| {' | '.join([*cells, *[''] * (6 - len(cells))])} |"


def table(title: str, rows: list[Row], peak: float) -> list[str]:
    """Head and steps; ratios are to the released step of the same batch."""
    lines = [line(title, "rate", "ratio", "MFU", "of the limit", "peak memory, GiB"), "|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        same, what = {other.name: other for other in rows if other.batch == row.batch}, f"{row.name}, batch {row.batch}"
        if not row.pairs_per_s:
            lines.append(line(what, "out of memory"))
            continue
        per_s, released = row.pairs_per_s / row.batch, same.get("released", row).pairs_per_s
        lines.append(
            line(
                what,
                f"{row.pairs_per_s:,.0f} pairs/s",
                f"{row.pairs_per_s / released:.2f}" if released else "",
                f"{row.flop * per_s / peak:.1%}",
                f"{same['tree'].flop * per_s / peak:.1%}",
                f"{row.memory / 2**30:.1f}" if row.memory else "",
            )
        )
    return lines


def goals(rows: list[Row], peak: float, of_limit: float | None) -> str:
    """One line: what is wanted, at the largest batch that every step of it could take, and what came of it."""
    rates: dict[int, dict[str, Row]] = {}
    for row in rows:
        if row.pairs_per_s:
            rates.setdefault(row.batch, {})[row.name] = row
    whole = [batch for batch, found in rates.items() if {"released", "padded", "tree"} <= found.keys()]
    met = []
    if whole:
        found = rates[max(whole)]
        tree = found["tree"]
        met = [
            ("MFU of the tree", tree.flop * tree.pairs_per_s / tree.batch / peak, 0.3, ".1%"),
            ("of the padded step", tree.pairs_per_s / found["padded"].pairs_per_s, 2.5, ".2f"),
            ("of the released step", tree.pairs_per_s / found["released"].pairs_per_s, 3.0, ".2f"),
        ]
    if of_limit is not None:
        met.append(("of the limit in requests", of_limit, 0.5, ".1%"))
    told = [
        f"{what} {got:{form}} (>= {want:{form}}: {'met' if got >= want else 'missed'})" for what, got, want, form in met
    ]
    return f"goals: {'; '.join(told)}"


def requests(
    shape: gpu_engine.Shape, device: str, limits: tuple[float, float], seconds: float, most: float
) -> tuple[list[str], str, float | None]:
    """Lines of the table, what is said where there are none, and the first way's share of its limit."""
    if importlib.util.find_spec("vllm") is None:
        return [], "requests: not measured, as vLLM is not installed", None
    bytes_each = 2 if device == "cuda" else 4  # bf16; on a CPU our engine takes fp32
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            found = gpu_engine.served(shape, Path(folder), seconds, most)
        except RuntimeError as error:
            return [], f"requests: not measured, {error}", None
    shares = [one.requests_per_s / gpu_engine.limit(shape, one, *limits, bytes_each) for one in found]
    lines = []
    for one, share in zip(found, shares, strict=True):
        ratio = one.requests_per_s / found[0].requests_per_s
        lines.append(line(one.name, f"{one.requests_per_s:,.1f} requests/s", f"{ratio:.2f}", "", f"{share:.1%}"))
    return lines, "", shares[0]


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--precision", default="bf16", choices=("fp32", "bf16"))
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--model", default="ViT-B-32", help="open_clip architecture, or a folder")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each kind of step and batch")
    parser.add_argument("--images", type=int, default=2048, help="stand-in images that the loader reads")
    parser.add_argument("--workers", type=int, default=8, help="processes of the loader")
    parser.add_argument("--peak-tflops", type=float, help="of the device in that precision, by its data sheet")
    parser.add_argument("--gbytes", type=float, help="GB/s of the device's memory, by its data sheet")
    parser.add_argument("--shape", type=int, nargs=6, default=gpu_engine.LLAMA_8B, help="of the language model")
    parser.add_argument("--request-seconds", type=float, default=8.0, help="twice for each way of asking; 0 = none")
    arguments = parser.parse_args(given)
    begun, device = time.monotonic(), arguments.device
    model = clip.load(arguments.model, None, seed=0, device=device)
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    peak, bandwidth, told = limits_of(device, arguments.precision, arguments.peak_tflops, arguments.gbytes)
    print(told)
    print(compare(model.model, size_of(model), device))
    if device == "cuda":
        print(compare(model.model, size_of(model), device, Compiled))
    title = f"{date.today()}, {where}, torch {torch.__version__}, {arguments.precision}, {arguments.model}"
    rows = trained(arguments, model, device)
    lines = table(title, rows, peak)
    with tempfile.TemporaryDirectory() as folder:
        config = Config(precision=arguments.precision, batch=arguments.batch[0], warmup=0)
        found = fed(model, config, Path(folder), arguments.images, arguments.workers, device)
    best = next(row.pairs_per_s for row in rows if row.name == "tree")
    for name, pairs_per_s in found.items():
        what = f"fed by {arguments.workers} processes, images {name}; ratio to tree, batch {arguments.batch[0]}"
        lines.append(line(what, f"{pairs_per_s:,.0f} pairs/s", f"{pairs_per_s / best:.2f}" if best else ""))
    of_limit = None
    if arguments.request_seconds:
        del model
        if device == "cuda":  # the engine wants nearly all of the memory
            gc.collect()
            torch.cuda.empty_cache()
        left, shape = MOST_S - (time.monotonic() - begun), gpu_engine.Shape(*arguments.shape)
        more, why_none, of_limit = requests(shape, device, (peak, bandwidth), arguments.request_seconds, left)
        lines += more
        if why_none:
            print(why_none)
    print("\n".join(lines))
    print(goals(rows, peak, of_limit))
    print(f"{time.monotonic() - begun:.0f} s in all")


def trained(arguments: argparse.Namespace, model: clip.Clip, device: str) -> list[Row]:
    """What each kind of step reaches at each batch."""
    rows: list[Row] = []
    for count in arguments.batch:
        config = Config(precision=arguments.precision, batch=count, warmup=0)
        batches = [batch_of(count, size_of(model), seed) for seed in range(3)]
        batches = [Batch(one.image_BCHW.to(device), *list(vars(one).values())[1:]) for one in batches]
        steps = steps_of(model.model, config, device)
        rows += measure(steps, batches, arguments.seconds, device)
        if count == arguments.batch[0] and (asked := waits(steps["tree"], batches[0])) is not None:
            print(f"a step of ours waits for the GPU {asked} times")
    return rows


if __name__ == "__main__":
    main()
