"""train: a CLIP learns from the dataset by the DeGLA objective or a baseline's, with a teacher that follows it.

Reads pairs (the images) and dataset; writes student/ (an open_clip folder), teacher.safetensors and the steps table.
Killed at any moment, the same call resumes from its last checkpoint and ends, on a CPU, with the same bits.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pipeline import tables
from pipeline.artifact import Artifact, path_digest
from pipeline.clip import device, has_patches, model_digest
from pipeline.errors import UserError, need_package
from pipeline.negative_types import ABSENCE, PARAPHRASE, UNITS
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
    return digests | sources(config.objective.terms())


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


def check_towers(config: Config) -> None:
    """Raise UserError when a term looks at patches and tokens, and the model's towers do not give them."""
    needing = [name for name, term in config.objective.terms().items() if term.needs_patches]
    if needing and not has_patches(config.model):
        raise UserError(
            "train",
            f"{config.model} does not give the patches and tokens that {', '.join(needing)} looks at",
            "open_clip's own vision transformer or ResNet, and its causal text tower",
            f"--set train.objective.{needing[0]}=0, or another train.model",
        )


def check_pairs(config: Config, pairs: Artifact) -> None:
    """Raise UserError when the images of `pairs` fill no batch, or leave none to choose the best epoch by."""
    images = _images(pairs)
    largest = images["train"] // config.processes * config.processes
    wrong, settings = [], []
    if images["train"] < config.batch:
        wrong.append(f"a batch of {config.batch} needs as many different images, and {images['train']} are to train on")
        settings.append(f"--set train.batch={largest}")
    if config.select == "best" and not images["val"]:
        wrong.append("select is best, and no image is in split val")
        settings.append("--set train.select=last")
    if wrong:
        raise UserError(
            "train",
            " and ".join(wrong),
            "images to fill a batch and, to choose the epoch by, in split val",
            f"{' '.join(settings)}, or more images" if largest > 1 else "give ingest more images",
        )


def check_paraphrases(config: Config, kinds: Collection[str], pairs: Artifact | None = None) -> None:
    """Raise UserError when a term needs paraphrases and the dataset will have none.

    Args:
        config: the settings.
        kinds: the kinds of text that are generated.
        pairs: the pairs once they are known; before, images may have several captions.
    """
    made = {"rewrites": PARAPHRASE in kinds, "absences": ABSENCE in kinds}
    if not config.needs_paraphrases or any(made.get(source) for source in config.paraphrases):
        return
    if "captions" in config.paraphrases and (pairs is None or _has_siblings(pairs)):
        return
    raise UserError(
        "train",
        f"a term of train.objective needs paraphrases, and there will be none (train.paraphrases: "
        f"{', '.join(config.paraphrases)}; generate.paraphrases: {str(PARAPHRASE in kinds).lower()})",
        "rewrites of captions, or images with several captions to train on",
        "--set generate.paraphrases=true, with rewrites in train.paraphrases",
    )


def check_units(config: Config, kinds: Collection[str]) -> None:
    """Raise UserError when a term needs units and the dataset will have none; `kinds` of text are generated."""
    if config.needs_units and UNITS not in kinds:
        types = ", ".join((*config.types, UNITS))
        raise UserError(
            "train",
            "a term of train.objective needs units of captions, and there will be none",
            f"{UNITS} among generate.types",
            f"--set generate.types=[{types}]",
        )


def _has_siblings(pairs: Artifact) -> bool:
    """Whether an image to train on has two captions."""
    with tables.connect({"pairs": pairs.table_folder("pairs")}) as sql:
        several = "select image_key from pairs where split = 'train' group by 1 having count(*) > 1 limit 1"
        return bool(sql.execute(several).fetchall())


def _images(pairs: Artifact) -> dict[str, int]:
    """How many different images there are to train on and to validate by."""
    with tables.connect({"pairs": pairs.table_folder("pairs")}) as sql:
        counted = sql.execute("select split::varchar, count(distinct image_sha256) from pairs group by 1").fetchall()
    return {"train": 0, "val": 0} | dict(counted)


def run(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Make the `model` artifact.

    Raises:
        UserError: the model cannot be loaded or lacks what a term looks at, or the dataset was made for another
            tokenizer; no batch can be filled or shared by the processes; an image cannot be read; memory does not
            suffice; `loop.GIVE_UP` steps in a row are not finite.
        TransientError: one of several processes died.
    """
    from stages.train.launch import launch

    check_towers(config)
    return launch(config, inputs, out, progress)


STAGE = Stage(
    name="train", makes="model", needs=("pairs", "dataset"), version=6, config=Config, outside=outside, run=run
)
