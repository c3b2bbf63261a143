"""The `report` stage: what it reads, what it makes.

Writes report.html (one file, no network), report.md, report.json (the same facts) and figures/*.svg. Equal inputs give
equal bytes. Whatever came from data (captions, responses, file names) is escaped.
"""

from pathlib import Path
from typing import Any

from pipeline.artifact import path_digest
from pipeline.errors import UserError
from pipeline.stage import Inputs, Progress, Stage
from stages import labels
from stages.benchmarks.registry import REGISTRY
from stages.pages import TEMPLATES
from stages.report.config import Config


def outside(config: Config) -> dict[str, str]:
    """Digests of the templates, the benchmark registry, the published scores and the comparison."""
    from stages.report.published import PUBLISHED  # it needs the table of all benchmarks

    read = {"templates": TEMPLATES, "registry": REGISTRY, "published": PUBLISHED}
    if config.comparison:
        if not config.comparison.is_file():
            raise UserError(
                "report",
                f"there is no {config.comparison}",
                "comparison.json, which degla run ablation writes",
                "set report.comparison",
            )
        read["comparison"] = config.comparison
    return {name: path_digest(path) for name, path in read.items()}


def beside(inputs: Inputs) -> dict[str, str]:
    """Digest of the labels of the negatives, where there are any."""
    return labels.digests(inputs["negatives"].path)


def run(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Make the `report` artifact. Raises UserError when a held-out image to be shown cannot be read."""
    from stages.report.page import write  # matplotlib and jinja

    return write(config, inputs, out, progress)


STAGE = Stage(
    name="report",
    makes="report",
    needs=("pairs", "negatives", "dataset", "model", "scores"),
    version=4,
    config=Config,
    outside=outside,
    run=run,
    beside=beside,
)
