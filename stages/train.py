"""train: a CLIP learns from the dataset by the DeGLA objective, with a teacher that follows it.

Reads pairs (the pictures) and dataset; writes student/ (an open_clip folder), teacher.safetensors and the steps table.
Killed at any moment, the same call goes on from its last checkpoint and ends, on a CPU, with the same bits.
"""

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from pipeline.config import Config as BaseConfig
from pipeline.config import placement
from pipeline.errors import UserError
from pipeline.schema import NEGATIVE_TYPES
from pipeline.stage import Inputs, Progress, Stage

if TYPE_CHECKING:
    from pipeline.clip import Clip
    from stages.batches import Batch, Batches
    from stages.objective import Objective

GIVE_UP = 10
"""Steps in a row without a finite loss and gradient after which training stops."""


class Loss(BaseConfig):
    """Weights and constants of the loss; the defaults are the paper's. What each term is: stages/objective.py."""

    base: float = Field(1.0, ge=0, description="weight of the NegCLIP term")
    distill: float = Field(
        0.005, ge=0, description="weight of the summed self-distillation; the sum grows with batch, this is for 256"
    )
    igc: float = Field(0.1, ge=0, description="weight of the image-grounded contrast")
    tgc: float = Field(0.1, ge=0, description="weight of the text-grounded contrast")
    tgc_scale: float = Field(10.0, gt=0, description="logit scale of the text-grounded contrast, fixed")
    tgc_layout: Literal["paper", "as_released"] = Field(
        "paper", description="which negatives a caption meets in tgc: its own, or those the released code picks"
    )
    ema: float = Field(0.9996, ge=0, le=1, description="teacher <- ema * teacher + (1 - ema) * student, every step")
    max_logit_scale: float = Field(100.0, gt=1, description="the learned logit scale is clamped to [1, this]")


class Config(BaseConfig):
    """How the student is trained; the defaults are the paper's."""

    model: str = Field("ViT-B-32", description="open_clip architecture, hf-hub:owner/name, or a local open_clip folder")
    pretrained: str | None = Field(
        "openai", description="open_clip tag or weights file; null: the folder's own weights, else random ones"
    )
    seed: int = Field(42, ge=0, description="of random weights, order of the rows and draw of the negatives")
    epochs: int = Field(5, ge=1, description="passes over the training split")
    batch: int = Field(256, ge=2, description="pairs in the global batch, over all processes and chunks")
    types: tuple[str, ...] = Field(NEGATIVE_TYPES, description="negative types that may be drawn")
    negatives_per_caption: int = Field(
        4, ge=0, le=5, description="K: drawn anew for each caption and epoch from the types it has; 0 = plain CLIP"
    )
    objective: Loss = Field(Loss(), description="the loss")
    lr: float = Field(1e-6, gt=0, description="peak learning rate")
    betas: tuple[float, float] = Field((0.9, 0.98), description="AdamW's betas")
    eps: float = Field(1e-6, gt=0, description="AdamW's epsilon")
    weight_decay: float = Field(0.1, ge=0, description="AdamW's weight decay; none on gains, biases and logit scale")
    warmup: int = Field(50, ge=0, description="steps of linear warm-up; a cosine to 0 follows")
    grad_clip: float | None = Field(None, gt=0, description="largest global gradient norm; null = no clipping")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of the encoders (AMP); the loss is fp32")
    accumulate: int = placement(1, ge=1, description="chunks a batch is encoded in: less memory, same gradients")
    device: str = placement("auto", description="torch device; auto = cuda where there is one, else cpu")
    workers: int = placement(2, ge=0, description="loader processes")
    cache_mb: int = placement(512, ge=0, description="decode pictures once and keep them when they fit in this, MB")
    checkpoint_steps: int = placement(200, ge=1, description="steps between checkpoints; the most that a kill can cost")

    @model_validator(mode="after")
    def _types_exist(self) -> "Config":
        unknown = set(self.types) - set(NEGATIVE_TYPES)
        if unknown or len(set(self.types)) < len(self.types):
            raise ValueError(
                f"types must be different ones of {', '.join(NEGATIVE_TYPES)}; got {', '.join(self.types)}"
            )
        return self


def outside(config: Config) -> dict[str, str]:
    """Digest of the starting model."""
    from pipeline.clip import model_digest

    return {"model": model_digest(config.model, config.pretrained)}


def run(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Make the `model` artifact.

    Raises:
        UserError: the model cannot be loaded or the dataset was made for another tokenizer; no batch can be filled;
            a picture cannot be read; memory runs out; `GIVE_UP` steps in a row are not finite.
    """
    import torch

    from pipeline import clip, tables
    from pipeline.schema import STEPS
    from stages.objective import Objective

    device = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    student = clip.load(config.model, config.pretrained, seed=config.seed, device=device)
    batches = _batches(config, inputs, student, progress)
    training = _Training(config, Objective(config.objective, student.model, config.precision), len(batches), device)
    checkpoint = out / ".work" / "checkpoint.pt"
    training.restore(checkpoint)
    try:
        training.go_on(batches, student, checkpoint, progress)
    except torch.OutOfMemoryError as error:
        raise UserError(
            "train",
            f"no memory left on {device} for {config.batch} pairs in {config.accumulate} chunks",
            "a chunk that fits",
            f"--set train.accumulate={2 * config.accumulate} (same gradients) or train.precision=bf16",
        ) from error
    student.model.eval()
    clip.save(student, out / "student")
    clip.save_weights(training.objective.teacher, out / "teacher.safetensors")
    tables.write(tables.part(out / "steps", 0), training.steps, STEPS)
    return {
        "start": {"model": config.model, "pretrained": config.pretrained, "seed": config.seed},
        "description": student.description,
        "steps": len(training.steps),
        "pairs": len(batches.rows),
        "parameters": sum(parameter.numel() for parameter in student.model.parameters()),
        "device": device,
        "not_finite": sum(not _finite(step) for step in training.steps),
    }


def _batches(config: Config, inputs: Inputs, student: "Clip", progress: Progress) -> "Batches":
    from pipeline import clip
    from stages.batches import Batches, Pictures, read_rows

    dataset = inputs["dataset"]
    if dataset.meta["tokenizer"] != clip.tokenizer_digest(config.model):
        raise UserError(
            "train",
            f"the dataset's tokens are not {config.model}'s",
            "one tokenizer in assemble and train",
            f"--set assemble.tokenizer={config.model}",
        )
    rows = read_rows(dataset, inputs["pairs"], config.types)
    pictures = Pictures(rows, student)
    cached = pictures.bytes() <= config.cache_mb * 2**20
    source = pictures.decoded(config.workers, progress) if cached else pictures
    return Batches(rows, source, config.batch, config.negatives_per_caption, config.epochs, config.seed)


class _Training:
    """All that changes while a model is trained; what a checkpoint holds."""

    def __init__(self, config: Config, objective: "Objective", total: int, device: str) -> None:
        import torch

        self.config, self.objective, self.total, self.device = config, objective, total, device
        self.parameters = [parameter for parameter in objective.student.parameters() if parameter.requires_grad]
        decayed = [parameter for parameter in self.parameters if parameter.ndim >= 2]
        plain = [parameter for parameter in self.parameters if parameter.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            fused=True,
        )
        self.scaler = torch.amp.GradScaler(device.split(":")[0], enabled=config.precision == "fp16")
        self.steps: list[dict[str, Any]] = []

    def go_on(self, batches: "Batches", student: "Clip", checkpoint: Path, progress: Progress) -> None:
        """Train from the step reached to the last, with checkpoints."""
        from stages.batches import load

        loader = load(batches, len(self.steps), self.config.workers)
        ready = time.perf_counter()
        for batch in loader:
            waited = time.perf_counter() - ready
            self.step(batch.on(self.device, student))
            done, now = len(self.steps), time.perf_counter()
            speed = self.config.batch / (now - ready + waited)
            self.steps[-1] |= {"epoch": batches.epochs_done(done), "samples_per_s": speed, "data_wait": waited}
            ready = now
            self.refuse_to_go_nowhere()
            if done % self.config.checkpoint_steps == 0 or done == self.total:
                self.save(checkpoint)
            progress(f"steps, loss {self.steps[-1]['loss']:.3f}", done, self.total)
            ready = time.perf_counter()

    def step(self, batch: "Batch") -> None:
        """One optimizer step and one step of the teacher; neither when the loss or a gradient is not finite."""
        import torch

        lr = learning_rate(len(self.steps), self.total, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        losses = self.objective.forward_backward(batch, self.config.accumulate, self.scaler.scale)
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm(p.grad for p in self.parameters if p.grad is not None).item()
        if self.config.grad_clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.config.grad_clip, torch.tensor(norm))
        record = {"step": len(self.steps) + 1, **losses, "lr": lr, "grad_norm": norm}
        if _finite(record):
            self.scaler.step(self.optimizer)
            self.objective.clamp_scale()
            self.objective.update_teacher()
        self.scaler.update()
        self.steps.append(record | {"logit_scale": self.objective.scale})

    def refuse_to_go_nowhere(self) -> None:
        """Raise UserError after `GIVE_UP` steps in a row without an update."""
        last = self.steps[-GIVE_UP:]
        if len(last) == GIVE_UP and not any(map(_finite, last)):
            raise UserError(
                "train",
                f"loss or gradient not finite in {GIVE_UP} steps in a row, up to step {len(self.steps)}",
                "finite ones",
                "lower train.lr, set train.grad_clip, or set train.precision to fp32",
            )

    def save(self, checkpoint: Path) -> None:
        """Write the checkpoint so that there is always a whole one."""
        import torch

        from pipeline.tables import finish

        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        unfinished = checkpoint.with_suffix(".tmp")
        torch.save(
            {
                "student": self.objective.student.state_dict(),
                "teacher": self.objective.teacher.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
                "steps": self.steps,
            },
            unfinished,
        )
        finish(unfinished, checkpoint)

    def restore(self, checkpoint: Path) -> None:
        """Take up the training of an earlier, killed call, if it left a checkpoint."""
        import torch

        if not checkpoint.exists():
            return
        state = torch.load(checkpoint, map_location=self.device, weights_only=True)
        self.objective.student.load_state_dict(state["student"])
        self.objective.teacher.load_state_dict(state["teacher"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"].cpu())
        if state["cuda_rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([rng.cpu() for rng in state["cuda_rng"]])
        self.steps = state["steps"]


def learning_rate(step: int, total: int, config: Config) -> float:
    """Learning rate of a 0-based step: linear over `warmup` steps up to `lr`, then a cosine down to 0 at `total`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    return config.lr * (1 + math.cos(math.pi * (step - config.warmup) / max(total - config.warmup, 1))) / 2


def _finite(step: dict[str, Any]) -> bool:
    return math.isfinite(step["loss"]) and math.isfinite(step["grad_norm"])


STAGE = Stage(
    name="train", makes="model", needs=("pairs", "dataset"), version=1, config=Config, outside=outside, run=run
)
