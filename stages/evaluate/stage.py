"""evaluate as a stage: what it reads from outside the store, and what it makes.

Writes scores (SCORES), one part per model or text-only baseline; the manifest's meta holds every aggregate with its
interval.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.artifact import digest, listing_digest, path_digest
from pipeline.errors import UserError
from pipeline.stage import Inputs, Progress, Stage
from stages.benchmarks.registry import REGISTRY
from stages.evaluate.config import Config
from stages.language_models.folders import folder_digest, local_model
from stages.text.bindings import VERSION
from stages.text.words import tagger_digest


def outside(config: Config) -> dict[str, str]:
    """Digests of the registry, the benchmark files (images by name, size and time), the tagger, the language model."""
    from stages.benchmarks.loaders import available, check_names  # the readers of all benchmarks

    digests = {"registry": path_digest(REGISTRY), "bindings": digest([VERSION, tagger_digest(), version("textblob")])}
    check_names(config.benchmarks or ())
    if config.root:
        if not config.root.is_dir():
            raise UserError(
                "evaluate", f"there is no folder {config.root}", "a folder of benchmarks", "set evaluate.root"
            )
        for name in config.benchmarks or available(config.root):
            if (config.root / name).is_dir():
                digests[name] = listing_digest(config.root / name)
    if config.likelihood:
        folder = local_model(config.likelihood)
        digests["likelihood"] = folder_digest(folder) if folder else config.likelihood
    return digests


def run(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Make the `scores` artifact. Raises UserError for broken or absent benchmarks and for models that do not load."""
    from stages.evaluate.measure import score_artifacts  # it needs scipy, which no start of the command line should

    return score_artifacts(config, inputs, out, progress)


STAGE = Stage(
    name="evaluate",
    makes="scores",
    needs=("pairs", "dataset", "model"),
    version=4,
    config=Config,
    outside=outside,
    run=run,
)
