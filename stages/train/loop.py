"""The training itself, in one process of however many: what changes from step to step, and what ends it."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline import clip, tables
from pipeline.artifact import SCRATCH
from pipeline.clip import Clip, text_map, tuning
from pipeline.crew import cores
from pipeline.errors import UserError
from pipeline.negative_types import types_in
from pipeline.schema import steps_schema
from pipeline.stage import Inputs, Progress
from stages.train import checkpoints, memory, mining, processes, validation
from stages.train.batches import Batch, Batches, load
from stages.train.config import Config
from stages.train.joined import Joined
from stages.train.logs import Log
from stages.train.memory import NotEnoughMemoryError
from stages.train.objective import Objective
from stages.train.pictures import Images
from stages.train.rows import read_rows
from stages.train.terms import columns

GIVE_UP = 10
"""Steps in a row without a finite loss and gradient after which training stops."""

FETCH_STEPS = 10
"""Steps after which a GPU is waited for, to learn what it measured; a CPU tells after each."""


def train(config: Config, inputs: Inputs, out: Path, device: str, *, progress: Progress) -> dict[str, Any]:
    """Train, or resume training, and write the `model` artifact's files; only the first process writes.

    Raises:
        UserError: see `stages.train.stage.run`.
        NotEnoughMemoryError: as told by an estimate before the first step, or by the allocator.
    """
    if device == "cuda" and processes.world() > 1:
        device = f"cuda:{torch.cuda.current_device()}"
    with _same_bits(_is_repeatable(config, device)):
        return _train(config, inputs, out, device, progress)


def _train(config: Config, inputs: Inputs, out: Path, device: str, progress: Progress) -> dict[str, Any]:
    student = _student(config, device)
    batches, held_out = _data(config, inputs, student, out / SCRATCH, device, progress)
    objective = Objective(config.objective, student.model, config.precision)
    tuning.speed_up(student.model, checkpoint_gradients=config.checkpoint_gradients, compiled=config.compile)
    tuning.speed_up(objective.teacher, checkpoint_gradients=False, compiled=config.compile)
    training = Training(config, objective, len(batches), device)
    training.restore(out / SCRATCH)
    needed = memory.estimate(objective, batches[0].on(device, student), config.accumulate)
    room = memory.available(device) // (processes.on_this_machine() if device == "cpu" else 1)
    if needed > room:
        raise NotEnoughMemoryError(f"a step needs about {memory.text(needed)} and {memory.text(room)} are free")
    try:
        training.train_loop(batches, held_out, student, out / SCRATCH, progress)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not memory.is_out_of_memory(error):
            raise
        raise NotEnoughMemoryError(str(error).splitlines()[0]) from None
    if processes.rank():
        return {}
    if config.select == "best":
        best = checkpoints.best(out / SCRATCH, training.best_step)
        objective.student.load_state_dict(best["student"])
        objective.teacher.load_state_dict(best["teacher"])
    for model in (objective.student, objective.teacher):
        if config.lora_rank:
            tuning.merge_lora(model)
        if config.text_map:
            text_map.fold(model)
    start = _start(config)
    began = clip.load(**start, device=device).model
    if config.alpha < 1:
        student.model.load_state_dict(tuning.interpolate(began, student.model, config.alpha))
    student.model.eval()
    clip.save(student, out / "student")
    clip.save_weights(objective.teacher, out / "teacher.safetensors")
    tables.write(tables.part(out / "steps", 0), training.steps, steps_schema(columns(config.objective.weights())))
    return {
        "start": start,
        "description": student.description,
        "steps": len(training.steps),
        "reach": sum(step["lr"] for step in training.steps),
        "pairs": len(batches.rows),
        "parameters": sum(parameter.numel() for parameter in student.model.parameters()),
        "trained_parameters": sum(parameter.numel() for parameter in training.parameters),
        "weight_delta": tuning.weight_delta(began, student.model),
        "validation": training.validation,
        "kept_step": training.best_step if config.select == "best" else len(training.steps),
        "device": device,
        "processes": processes.world(),
        "memory": {"estimate_bytes": needed, "free_bytes": room, "peak_bytes": memory.peak(device)},
        "determinism": _determinism(config, device),
        "not_finite": sum(not _finite(step) for step in training.steps),
    }


@contextmanager
def _same_bits(chosen: bool) -> Iterator[None]:
    """While open, torch uses only kernels that give the same bits each time, if that is chosen."""
    settings: Any = torch.utils.deterministic
    before, filled = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(chosen)
    settings.fill_uninitialized_memory = False  # nothing here reads what was not written
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        settings.fill_uninitialized_memory = filled


def _is_repeatable(config: Config, device: str) -> bool:
    """Always on a CPU, where it costs little: several threads add up gradients in any order otherwise."""
    return device == "cpu" or config.deterministic


def _start(config: Config) -> dict[str, Any]:
    """What `clip.load` is told of the starting model."""
    return {
        "model": config.model,
        "pretrained": config.pretrained,
        "seed": config.seed,
        "activation": config.activation,
    }


def _student(config: Config, device: str) -> Clip:
    student = clip.load(**_start(config), device=device)
    let_learn(student.model, config)
    return student


def let_learn(model: torch.nn.Module, config: Config) -> None:
    """What of the model learns, and what is put beside it to learn, in place. Raises UserError as `tuning` does."""
    tuning.lock(model, image=config.lock_image, text=config.lock_text, unlocked=config.unlocked_groups)
    if config.lora_rank:
        tuning.add_lora(model, config.lora_rank, config.lora_alpha, config.seed)
    if config.text_map:
        text_map.add(model)
    if config.lock_scale:
        for parameter in tuning.logit_parameters(model):
            parameter.requires_grad_(False)


def _data(
    config: Config, inputs: Inputs, student: Clip, work: Path, device: str, progress: Progress
) -> tuple[Batches, Batches | None]:
    """The batches to learn from and, where the best epoch is to be kept, those of the val split."""
    dataset = inputs["dataset"]
    if dataset.meta["tokenizer"] != clip.tokenizer_digest(config.model):
        raise UserError(
            "train",
            f"the dataset's tokens are not {config.model}'s",
            "one tokenizer in assemble and train",
            f"--set assemble.tokenizer={config.model}",
        )
    table = config.negative_images if isinstance(config.negative_images, Path) else None
    sources = config.paraphrases if config.needs_paraphrases else ()
    rows = read_rows(
        dataset, inputs["pairs"], config.types, shown=table, paraphrases=sources, units=config.needs_units,
        captions=config.needs_joined,
    )  # fmt: skip
    images = _images(config, inputs, Images(rows, student, config.crop), progress)
    neighbours = None
    if config.similar_images or config.negative_images == "mined":
        whole = images if config.crop == "center" else Images(rows, student)
        image_PD = mining.embed_images(student, whole, device, work, progress)
        if config.similar_images:
            neighbours = mining.neighbours(image_PD, config.similar_images)
        if config.negative_images == "mined":
            rows.depicting[:] = mining.fitting(image_PD, rows, mining.embed_tokens(student, device))
    batches = Batches(
        rows, images, config.batch, config.negatives_per_caption, config.epochs, config.seed,
        processes.rank(), processes.world(), neighbours,
        Joined(rows, images, config.model, config.seed).batch if config.needs_joined else None,
    )  # fmt: skip
    if config.select == "last":
        return batches, None
    # All types, whichever are trained with: so the score means the same for every method.
    held_out = read_rows(dataset, inputs["pairs"], types_in(tables.columns(dataset.table_folder("dataset"))), "val")
    shown = _images(config, inputs, Images(held_out, student), progress)
    return batches, validation.batches(held_out, shown, config.batch)


def _images(config: Config, inputs: Inputs, images: Images, progress: Progress) -> Images:
    """The images, kept in the home where the settings want that."""
    if images.nbytes <= config.cache_mb * 2**20:
        home = inputs["pairs"].path.parents[2]
        images.keep(home, max(1, cores() // processes.on_this_machine()), progress)
    return images


class Training:
    """All that changes while a model is trained; what a checkpoint holds."""

    def __init__(self, config: Config, objective: Objective, total: int, device: str) -> None:
        self.config, self.objective, self.total, self.device = config, objective, total, device
        self.parameters = [parameter for parameter in objective.student.parameters() if parameter.requires_grad]
        decayed = self.parameters if config.decay_all else tuning.decayed(objective.student)
        of_decayed = set(map(id, decayed))
        plain = [parameter for parameter in self.parameters if id(parameter) not in of_decayed]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            fused=True,
        )
        self.scaler = torch.amp.GradScaler(device.split(":")[0], enabled=config.precision == "fp16")
        self.steps: list[dict[str, Any]] = []
        self.validation: list[dict[str, float]] = []
        self.fetch_steps = 1 if device == "cpu" else FETCH_STEPS
        self._measured: list[tuple[dict[str, Any], list[str], Tensor]] = []

    @property
    def done(self) -> int:
        """Steps made."""
        return len(self.steps) + len(self._measured)

    @property
    def best_step(self) -> int:
        """The step of the best score on the val split so far, the first of equals."""
        return int(max(self.validation, key=lambda one: one["score"])["step"])

    def train_loop(
        self, batches: Batches, held_out: Batches | None, student: Clip, work: Path, progress: Progress
    ) -> None:
        """Train from the step reached to the last, with checkpoints."""
        # A CPU has nothing to do while a batch that only has to be copied is made.
        ahead = 0 if self.device == "cpu" and batches.images.are_kept else self.config.workers
        on_gpu = self.device.startswith("cuda")
        pooled = clip.pooling(self.objective.student)
        loader = load(batches, self.done, ahead, self.config.accumulate, pooled, pinned=on_gpu)
        log = Log(self.config.tensorboard, self.config.wandb) if not processes.rank() else None
        ready = since = time.perf_counter()
        for parts in loader:
            waited = time.perf_counter() - ready
            if batches.epoch_starts(self.done):
                self.objective.new_epoch()
            epoch = batches.epochs_done(self.done + 1)
            self.step([part.on(self.device, student) for part in parts], epoch=epoch, data_wait=waited)
            done = self.done
            ends = done == self.total or batches.epoch_starts(done)
            validates = held_out is not None and ends
            saves = validates or done % self.config.checkpoint_steps == 0 or done == self.total
            if saves or len(self._measured) >= self.fetch_steps:
                fetched = self.fetch()
                each = (time.perf_counter() - since) / len(fetched)
                for step in fetched:
                    step["samples_per_s"] = self.config.batch / each
                    if log:
                        log.write(step)
                self.raise_if_diverged()
                if held_out is not None and validates and not processes.rank():
                    self.validate(held_out, student, work)
                if saves and not processes.rank():
                    self.save(work)
                since = time.perf_counter()
            progress(f"steps, loss {self.steps[-1]['loss']:.3f}" if self.steps else "steps", done, self.total)
            ready = time.perf_counter()
        if log:
            log.close()

    def step(self, parts: Sequence[Batch], **told: float) -> None:
        """One optimizer step and one step of the teacher; neither when the loss or a gradient is not finite.

        Nothing here waits for the device: it decides whether the step is made, and `fetch` brings what it measured.

        Args:
            parts: this process's share of the batch, in pieces, on the device.
            told: what else is to stand in the step's row of the table.
        """
        number = self.done
        lr = learning_rate(number, self.total, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        # Whatever a model draws at random (dropped patches) depends on seed, step and process alone.
        torch.manual_seed((self.config.seed * 1_000_003 + number) * 4099 + processes.rank())
        losses = self.objective.forward_backward(parts, self.scaler.scale)
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm(p.grad for p in self.parameters if p.grad is not None)
        if self.config.grad_clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.config.grad_clip, norm)
        finite = losses["loss"].isfinite() & norm.isfinite()
        # Where this is 1, fused AdamW changes nothing; so a loss scaler tells it as well.
        self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.objective.after_step(finite)
        self.scaler.update()
        found = losses | {"grad_norm": norm, "logit_scale": self.objective.scale}
        self._measured.append(({"step": number + 1, "lr": lr, **told}, list(found), torch.stack(list(found.values()))))

    def fetch(self) -> list[dict[str, Any]]:
        """The steps since the last call, as they now stand in `steps`; the device is waited for once."""
        if not self._measured:
            return []
        rows = torch.stack([values for _, _, values in self._measured]).tolist()
        unused = dict.fromkeys((f"{name}_loss" for name in self.config.objective.weights()), math.nan)
        fetched = [
            told | unused | dict(zip(names, row, strict=True))
            for (told, names, _), row in zip(self._measured, rows, strict=True)
        ]
        self.steps += fetched
        self._measured.clear()
        return fetched

    def raise_if_diverged(self) -> None:
        """Raise UserError after `GIVE_UP` steps in a row without an update, and at the end for weights not finite."""
        patience, ended = min(GIVE_UP, self.total), self.done == self.total
        recent = self.steps[-(patience + self.fetch_steps - 1) :]
        runs = [recent[end - patience : end] for end in range(patience, len(recent) + 1)]
        if run := next((run for run in runs if not any(map(_finite, run))), None):
            what = f"loss or gradient not finite in {patience} steps in a row, up to step {run[-1]['step']}"
        elif ended and not all(parameter.isfinite().all() for parameter in self.parameters):
            what = f"weights not finite after the last of {self.done} steps"
        else:
            return
        fix = "lower train.lr, set train.grad_clip, or set train.precision to fp32"
        raise UserError("train", what, "finite ones", fix)

    def validate(self, held_out: Batches, student: Clip, work: Path) -> None:
        """Score the student on the val split, and keep it when it is the best so far."""
        found = validation.score(self.objective, held_out, student, self.device)
        self.validation.append({"step": len(self.steps)} | found)
        if self.best_step == len(self.steps):
            models = {"student": self.objective.student.state_dict(), "teacher": self.objective.teacher.state_dict()}
            checkpoints.save(models, work, "best", len(self.steps), keep=2)

    def save(self, work: Path) -> None:
        """Write a checkpoint."""
        state = {
            "student": self.objective.student.state_dict(),
            "teacher": self.objective.teacher.state_dict(),
            "thresholds": self.objective.threshold_T,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "steps": self.steps,
            "validation": self.validation,
        }
        checkpoints.save(state, work, "checkpoint", len(self.steps), keep=self.config.keep_checkpoints)

    def restore(self, work: Path) -> None:
        """Take up the training of an earlier, killed call, if it left a whole checkpoint.

        Raises UserError when processes on other machines see another one.
        """
        state = checkpoints.newest(work, "checkpoint", self.device)
        if state is not None:
            self.objective.student.load_state_dict(state["student"])
            self.objective.teacher.load_state_dict(state["teacher"])
            self.objective.threshold_T = state["thresholds"]
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.steps, self.validation = state["steps"], state["validation"]
        seen = processes.gathered(torch.tensor([len(self.steps)], device=self.device)).tolist()
        if len(set(seen)) > 1:
            raise UserError(
                "train",
                f"the processes resume from steps {', '.join(map(str, seen))}",
                "one checkpoint, seen by every machine",
                "set DEGLA_HOME to storage they share",
            )


def learning_rate(step: int, total: int, config: Config) -> float:
    """Learning rate of a 0-based step: linear over `warmup` steps up to `lr`, then a cosine down to 0 at `total`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    return config.lr * (1 + math.cos(math.pi * (step - config.warmup) / max(total - config.warmup, 1))) / 2


def _finite(step: dict[str, Any]) -> bool:
    return math.isfinite(step["loss"]) and math.isfinite(step["grad_norm"])


def _determinism(config: Config, device: str) -> dict[str, Any]:
    """What the same command gives again: the same bits, or figures that differ by rounding."""
    return {
        "level": "bits" if _is_repeatable(config, device) else "rounding",
        "holds_for": "the same machine, packages, threads, processes and accumulate",
        "threads": torch.get_num_threads(),
        "accumulate": config.accumulate,
        "compiled": config.compile,
    }
