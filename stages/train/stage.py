"""train: a CLIP learns from the dataset by the DeGLA objective or a baseline's, with a teacher that follows it.

Reads pairs (the images) and dataset; writes student/ (an open_clip folder), teacher.safetensors and the steps table.
Killed at any moment, the same call resumes from its last checkpoint and ends, on a CPU, with the same bits.
"""

from pathlib import Path
from typing import Any

from pipeline.artifact import path_digest
from pipeline.clip import device, model_digest
from pipeline.errors import UserError, need_package
from pipeline.stage import Inputs, Progress, Stage
from stages.train.config import Config
from stages.train.terms import sources


def outside(config: Config) -> dict[str, str]:
    """Digests of the starting model, of the table of negatives' images, and of the code of a script's own terms."""
    digests = {"model": model_digest(config.model, config.pretrained)}
    if isinstance(config.negative_images, Path):
        if not config.negative_images.is_file():
            raise UserError(
                "train", f"there is no {config.negative_images}", "a CSV or Parquet file", "set train.negative_images"
            )
        digests["negative_images"] = path_digest(config.negative_images)
    return digests | sources(name for name, weight in config.objective.weights().items() if weight)


def check_machine(config: Config) -> None:
    """Raise UserError for a GPU or an optional package that the settings need and this machine lacks."""
    for package, extra, is_asked in (
        ("tensorboard", "tensorboard", config.tensorboard),
        ("wandb", "wandb", config.wandb),
        ("peft", "lora", config.lora_rank > 0),
    ):
        if is_asked:
            need_package("train", package, extra)
    if config.device.startswith("cuda") and device("auto") != "cuda":
        raise UserError("train", f"device is {config.device}, and there is no GPU", "a GPU", "train.device=auto")


def run(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Make the `model` artifact.

    Raises:
        UserError: the model cannot be loaded or the dataset was made for another tokenizer; no batch can be filled or
            shared by the processes; an image cannot be read; memory does not suffice; `loop.GIVE_UP` steps in a row
            are not finite.
        TransientError: one of several processes died.
    """
    from stages.train.launch import launch

    return launch(config, inputs, out, progress)


STAGE = Stage(
    name="train", makes="model", needs=("pairs", "dataset"), version=5, config=Config, outside=outside, run=run
)
