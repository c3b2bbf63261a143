"""Who writes the negatives: what a recipe's model and prompts are, told apart by content, and how they are opened."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import artifact
from pipeline.errors import UserError
from pipeline.stage import Inputs
from stages.generate import prompts
from stages.generate.prompts import Prompt
from stages.generate.shards import Shards
from stages.language_models.base import LINE, LanguageModel, Replay, Server
from stages.language_models.folders import folder_digest, local_model
from stages.text.words import LEXICON

if TYPE_CHECKING:
    from stages.generate.stage import Config

NO_PROMPT = "none"
UNTOLD = ("rules", "replay", "given")
"""Backends that read no prompt."""


def open_model(config: "Config", plan: Shards, log: Path) -> LanguageModel:
    """Start what the recipe names, for the captions of a plan. Raises UserError when it cannot be had."""
    if config.backend == "replay":
        return Replay(Path(config.model))
    if config.backend == "rules":
        from stages.generate.rules import SAMPLE, Rules, Vocabulary

        return Rules(Vocabulary.of(plan.sample(SAMPLE)))
    if config.backend == "openai":
        return Server(
            config.base_url,
            config.model,
            temperature=config.temperature,
            top_p=config.top_p,
            concurrency=config.concurrency,
            timeout=config.timeout,
            structured=config.structured,
        )
    from stages.language_models.vllm import Engine

    return Engine(
        str(local_model(config.model) or config.model),
        revision=config.revision,
        temperature=config.temperature,
        top_p=config.top_p,
        seed=config.seed,
        settings=config.engine,
        log=log,
    )


# -- identity ----------------------------------------------------------------------------------------------------------


def prompts_of(config: "Config") -> dict[str, Prompt | None]:
    """The prompt of every wanted type; None where the backend is told nothing."""
    if config.backend in UNTOLD:
        return dict.fromkeys(config.kinds)
    return dict(prompts.load(config.prompts, config.kinds, config.examples_per_prompt))


def prompt_digest(config: "Config", prompt: Prompt | None) -> str:
    """Identity of what the model is told; "none" where it is told nothing."""
    return prompt.digest(config.examples_per_prompt) if prompt else NO_PROMPT


def source(config: "Config", prompt: Prompt | None, inputs: Inputs) -> dict[str, Any]:
    """Everything that decides a reply beside the caption."""
    shared = {"backend": config.backend, "model": model_digest(config), "seed": config.seed}
    if config.backend == "rules":
        return {**shared, "pairs": inputs["pairs"].digest, "lexicon": artifact.path_digest(LEXICON)}
    if config.backend == "replay":
        return shared
    return {
        **shared,
        "name": config.model,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "reply": LINE if config.backend == "vllm" or config.structured else None,
        "prompt": prompt_digest(config, prompt),
    }


def ask_seed(seed: int, kind: str, attempt: int, caption: str) -> int:
    """The sampling seed of one ask, fixed by what is asked: [0, 2^31)."""
    return int(hashlib.sha256(f"{seed}:{kind}:{attempt}:{caption}".encode()).hexdigest()[:8], 16) >> 1


def model_name(config: "Config") -> str:
    """What the table's `model` column says."""
    return config.backend if config.backend in UNTOLD else f"{config.backend}:{config.model}"


def model_digest(config: "Config") -> str:
    """Identity of the model. A folder counts by content, large files by size and both ends, its papers not."""
    if config.backend == "given":
        return "given"
    if config.backend == "rules":
        from stages.generate.rules import VERSION

        return f"rules {VERSION}"
    if config.backend == "openai":
        return config.model
    if config.backend == "replay":
        path = Path(config.model)
        if not path.is_file():
            raise UserError(
                "generate", f"no file {config.model}", "a Parquet or JSONL file of replies", "generate.model"
            )
        return artifact.path_digest(path)
    folder = local_model(config.model)
    if folder is None:
        if config.model.startswith((".", "/", "~", "data/")):
            raise UserError(
                "generate", f"no model folder {config.model}", "a folder, or a name on the hub", "generate.model"
            )
        return f"{config.model}@{config.revision or 'main'}"
    return folder_digest(folder)
