"""train: a CLIP learns from the dataset by the DeGLA objective or a rival's, with a teacher that follows it.

Reads pairs (the pictures) and dataset; writes student/ (an open_clip folder), teacher.safetensors and the steps table.
Killed at any moment, the same call goes on from its last checkpoint and ends, on a CPU, with the same bits.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from pipeline.artifact import SCRATCH, path_digest
from pipeline.config import Config as BaseConfig
from pipeline.config import placement
from pipeline.errors import UserError
from pipeline.schema import NEGATIVE_TYPES
from pipeline.stage import Inputs, Progress, Stage

TERMS = (
    "base", "distill", "igc", "tgc", "clip", "rank", "intra", "focal", "distractor", "triplet", "contrast_distill",
    "fisher",
)  # fmt: skip
"""Terms of the loss, each a weight of `Loss` and a column `<term>_loss` of the steps table."""


class Loss(BaseConfig):
    """Weights and constants of the loss; the defaults are the paper's. What each term is: stages/{losses,rivals}.py."""

    base: float = Field(1.0, ge=0, description="weight of the NegCLIP term")
    distill: float = Field(
        0.005, ge=0, description="weight of the summed self-distillation; the sum grows with batch, this is for 256"
    )
    igc: float = Field(0.1, ge=0, description="weight of the image-grounded contrast")
    tgc: float = Field(0.1, ge=0, description="weight of the text-grounded contrast")
    clip: float = Field(0.0, ge=0, description="weight of CLIP's own loss, which sees no negatives")
    rank: float = Field(0.0, ge=0, description="weight of CE-CLIP's cross-modal rank")
    intra: float = Field(0.0, ge=0, description="weight of CE-CLIP's intra-modal contrast, as of 2023")
    focal: float = Field(0.0, ge=0, description="weight of FSC-CLIP's global hard-negative term")
    distractor: float = Field(0.0, ge=0, description="weight of CoN-CLIP's loss; needs negative_images")
    triplet: float = Field(0.0, ge=0, description="weight of TripletCLIP's second half; needs negative_images")
    contrast_distill: float = Field(0.0, ge=0, description="weight of GIFT's contrastive distillation")
    fisher: float = Field(
        0.0, ge=0, description="weight of GIFT's L2 distance from the start; needs ema 1 and contrast_distill or clip"
    )
    tgc_scale: float = Field(10.0, gt=0, description="logit scale of the text-grounded contrast, fixed")
    tgc_layout: Literal["paper", "as_released"] = Field(
        "paper", description="which negatives a caption meets in tgc: its own, or those the released code picks"
    )
    focal_gamma: float = Field(2.0, ge=0, description="FSC-CLIP's focal exponent")
    focal_smoothing: float = Field(0.02, ge=0, lt=1, description="FSC-CLIP's label smoothing")
    temperature: float = Field(2.0, gt=0, description="of GIFT's contrastive distillation")
    ema: float = Field(0.9996, ge=0, le=1, description="teacher <- ema * teacher + (1 - ema) * student, every step")
    max_logit_scale: float = Field(100.0, gt=1, description="the learned logit scale is clamped to [1, this]")

    @model_validator(mode="after")
    def _learns_something(self) -> "Loss":
        if not any(weight for name, weight in self.weights().items() if name != "fisher"):
            raise ValueError("at least one term must have a weight above 0")
        if self.fisher and (self.ema < 1 or not (self.contrast_distill or self.clip)):
            raise ValueError("fisher measures from the start, so ema must be 1, and weighs by contrast_distill or clip")
        return self

    def weights(self) -> dict[str, float]:
        """Term -> weight, in the order of the steps table."""
        return {name: getattr(self, name) for name in TERMS}


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
    similar_images: int = Field(
        0, ge=0, description="NegCLIP's mining: half of each batch is drawn from this many nearest pictures; 0 = off"
    )
    negative_images: Path | Literal["mined"] | None = Field(
        None,
        description="pictures of negatives: a CSV or Parquet file (pair_id, type, image beside it), or mined = the "
        "training picture that the negative fits best by the starting model",
    )
    objective: Loss = Field(Loss(), description="the loss")
    lock_image: bool = Field(False, description="keep the picture tower as it is")
    lock_text: bool = Field(False, description="keep the text tower as it is")
    unlocked_groups: int = Field(0, ge=0, description="last layer groups of a locked tower that learn all the same")
    lora_rank: int = Field(0, ge=0, description="learn by LoRA of this rank (needs the extra lora); 0 = all weights")
    lora_alpha: float = Field(8.0, gt=0, description="LoRA's scale, alpha / rank")
    lr: float = Field(1e-6, gt=0, description="peak learning rate")
    betas: tuple[float, float] = Field((0.9, 0.98), description="AdamW's betas")
    eps: float = Field(1e-6, gt=0, description="AdamW's epsilon")
    weight_decay: float = Field(0.1, ge=0, description="AdamW's weight decay; none on gains, biases and logit scale")
    warmup: int = Field(50, ge=0, description="steps of linear warm-up; a cosine to 0 follows")
    grad_clip: float | None = Field(None, gt=0, description="largest global gradient norm; null = no clipping")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of the encoders (AMP); the loss is fp32")
    select: Literal["last", "best"] = Field(
        "last", description="which epoch is kept: the last, or the best on the dataset's val split (no benchmark)"
    )
    accumulate: int = placement(1, ge=1, description="chunks a batch is encoded in: less memory, same gradients")
    auto_accumulate: bool = placement(False, description="out of memory: go on with twice the chunks, same batch")
    checkpoint_gradients: bool = placement(False, description="compute activations twice: less memory, same gradients")
    compile: bool = placement(False, description="torch.compile the picture tower (rounds differently)")
    deterministic: bool = placement(False, description="only kernels that give the same bits each time (GPU, slower)")
    processes: int = placement(1, ge=1, description="processes, one per GPU or sharing the cores; batch is over all")
    device: str = placement("auto", description="torch device; auto = cuda where there is one, else cpu")
    workers: int = placement(2, ge=0, description="loader processes, of each process")
    cache_mb: int = placement(512, ge=0, description="decode pictures once and keep them when they fit in this, MB")
    checkpoint_steps: int = placement(200, ge=1, description="steps between checkpoints; the most that a kill can cost")
    keep_checkpoints: int = placement(2, ge=1, description="last checkpoints kept; a damaged one gives way to the next")
    tensorboard: Path | None = placement(None, description="also log to this folder (needs the extra tensorboard)")
    wandb: str | None = placement(None, description="also log to this Weights & Biases project (needs the extra wandb)")

    @model_validator(mode="after")
    def _fits(self) -> "Config":
        if self.batch % self.processes:
            raise ValueError(f"batch {self.batch} must divide by processes {self.processes}")
        if self.similar_images and self.batch % 2:
            raise ValueError("similar_images fill half of each batch, so batch must be even")
        if self.negative_images is None and (self.objective.distractor or self.objective.triplet):
            raise ValueError("distractor and triplet need negative_images: a table, or mined")
        if self.lora_rank and (self.lock_image or self.lock_text):
            raise ValueError("lora_rank learns beside frozen towers already; leave lock_image and lock_text out")
        return self

    @model_validator(mode="after")
    def _types_exist(self) -> "Config":
        unknown = set(self.types) - set(NEGATIVE_TYPES)
        if unknown or len(set(self.types)) < len(self.types):
            raise ValueError(
                f"types must be different ones of {', '.join(NEGATIVE_TYPES)}; got {', '.join(self.types)}"
            )
        return self


def outside(config: Config) -> dict[str, str]:
    """Digests of the starting model and of the table of negative pictures."""
    from pipeline.clip import model_digest

    digests = {"model": model_digest(config.model, config.pretrained)}
    if isinstance(config.negative_images, Path):
        if not config.negative_images.is_file():
            raise UserError(
                "train", f"there is no {config.negative_images}", "a CSV or Parquet file", "set train.negative_images"
            )
        digests["negative_images"] = path_digest(config.negative_images)
    return digests


def run(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Make the `model` artifact.

    Raises:
        UserError: the model cannot be loaded or the dataset was made for another tokenizer; no batch can be filled or
            shared by the processes;
            a picture cannot be read; memory does not suffice; `training.GIVE_UP` steps in a row are not finite.
        TransientError: one of several processes died.
    """
    import torch

    from stages.train import processes
    from stages.train.loop import MemoryLackError, train

    device = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and config.processes > torch.cuda.device_count():
        raise UserError(
            "train",
            f"{config.processes} processes need as many GPUs, and there are {torch.cuda.device_count()}",
            "one GPU per process",
            f"--set train.processes={torch.cuda.device_count()}",
        )
    if config.batch % processes.world():
        raise UserError(
            "train",
            f"batch {config.batch} cannot be shared by {processes.world()} processes",
            "a batch that divides by them",
            "set train.batch or start another number",
        )
    while True:
        try:
            if config.processes == 1 or processes.world() > 1:  # alone, or torchrun has started the processes
                return train(config, inputs, out, device, progress=progress)
            backend = "nccl" if device == "cuda" else "gloo"
            made: dict[str, Any] = processes.run(
                train, config.processes, backend, (config, inputs, out, device), out / SCRATCH, progress
            )
            return made
        except MemoryLackError as error:
            alone = processes.world() == 1  # else the other machines would have to do the same at the same step
            if not (config.auto_accumulate and alone) or 2 * config.accumulate > config.batch // config.processes:
                raise UserError(
                    "train",
                    f"no memory left on {device} for {config.batch} pairs in {config.accumulate} chunks: {error}",
                    "a chunk that fits",
                    f"--set train.accumulate={2 * config.accumulate} (same gradients), train.auto_accumulate=true, "
                    "train.checkpoint_gradients=true or train.precision=bf16",
                ) from None
        # Outside of the handler, so that nothing of the failed attempt is held any more.
        config = config.model_copy(update={"accumulate": 2 * config.accumulate})
        progress(f"out of memory: going on with {config.accumulate} chunks", 0, 1)


STAGE = Stage(
    name="train", makes="model", needs=("pairs", "dataset"), version=2, config=Config, outside=outside, run=run
)
