"""assemble: pairs and accepted negatives become the training set, one row per pair, validated, with tokens.

Writes dataset (DATASET), leaks (LEAKS), and a data card. Rows stand in an order drawn from a seed, in files of one row
group, so that going through the files one after another is going through a shuffle. DuckDB joins and sorts, and spills
to disk; only one shard's texts are in Python's memory.
"""

from pathlib import Path
from typing import Any

from pipeline.artifact import listing_digest
from pipeline.clip import tokenizer_digest
from pipeline.errors import UserError
from pipeline.stage import Inputs, Progress, Stage
from stages.assemble.checks import checks_digest
from stages.assemble.config import Config


def outside(config: Config) -> dict[str, str]:
    """Digests of the tokenizer and of the checks."""
    digests = {"tokenizer": tokenizer_digest(config.tokenizer), "checks": checks_digest()}
    for name, path in (("leaks_from", config.leaks_from), ("vg_map", config.vg_map)):
        if path is not None:
            if not path.exists():
                raise UserError("assemble", f"{path} is not there", "an existing path", f"set assemble.{name}")
            digests[name] = listing_digest(path)
    return digests


def run(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Make the `dataset` artifact.

    Raises UserError when a validation query finds offending rows, or when no row is left for training.
    """
    from stages.assemble.dataset import make  # DuckDB, Arrow, the readers of all benchmarks

    return make(config, inputs, out, progress)


STAGE = Stage(
    name="assemble", makes="dataset", needs=("pairs", "negatives"), version=3, config=Config, outside=outside, run=run
)
