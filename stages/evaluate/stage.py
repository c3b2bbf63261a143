"""evaluate as a stage: what it reads from outside the store, and what it makes.

Writes scores (SCORES), one part per model or text-only baseline; options (OPTIONS), the texts of each row; the
manifest's meta holds every aggregate with its interval.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline import tables
from pipeline.artifact import Artifact, digest, listing_digest, path_digest
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


def check_pairs(config: Config, pairs: Artifact) -> None:
    """Raise UserError when a run is to be scored on its own held-out images alone, and there are none."""
    from stages.benchmarks.loaders import available, dataset_readers

    chosen = available(config.root or pairs.path / "benchmarks") if config.benchmarks is None else config.benchmarks
    if set(chosen) <= dataset_readers().keys() and "test" not in _splits(pairs):
        raise UserError(
            "evaluate",
            "there is nothing to measure: no benchmark, and no image in split test",
            "a benchmark or a test split",
            "raise ingest.test_share, or set evaluate.root to a folder of benchmarks",
        )


def _splits(pairs: Artifact) -> set[str]:
    return set(tables.read(pairs.table_folder("pairs"), ["split"])["split"].unique().to_pylist())


def run(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Make the `scores` artifact. Raises UserError for broken or absent benchmarks and for models that do not load."""
    from stages.evaluate.measure import score_artifacts  # it needs scipy, which no start of the command line should

    return score_artifacts(config, inputs, out, progress)


STAGE = Stage(
    name="evaluate",
    makes="scores",
    needs=("pairs", "dataset", "model"),
    version=7,
    config=Config,
    outside=outside,
    run=run,
)
