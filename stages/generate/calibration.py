"""The texts on which a judge of negatives is measured, and the judge that the settings name measured on them."""

import random
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from pipeline import tables
from pipeline.artifact import Artifact
from pipeline.errors import UserError
from stages.benchmarks import loaders
from stages.generate.backends import BACKENDS
from stages.generate.config import Config
from stages.generate.verify import calibrate, judge_of
from stages.language_models.base import LanguageModel

SUBSETS = ("replace_att", "replace_obj", "swap_att", "swap_obj")
"""SugarCrepe's files of our types."""


def measured(config: Config, pairs: Artifact, root: Path, count: int, log: Path) -> dict[str, Any]:
    """What `calibrate` says of the judge of `config.verify`.

    Args:
        config: the stage's settings.
        pairs: the artifact, of which other captions of the same image are taken.
        root: folder of benchmarks.
        count: most texts of each kind.
        log: file for what an engine prints.

    Raises UserError when SugarCrepe or the judge is not there, or no image has two captions.
    """
    rng = random.Random(0)
    rows = [row for one in loaders.read("sugarcrepe", root) if one.name in SUBSETS for row in one.rows]
    with tables.connect({"pairs": pairs.table_folder("pairs")}) as sql:
        siblings = sql.sql(
            "select min(caption), max(caption) from pairs group by image_key "
            "having count(distinct caption) > 1 order by image_key"
        ).fetchall()
    if not siblings:
        raise UserError("verify", "no image has two captions", "pairs with several captions per image", "ingest.root")
    true = [(row.texts[0], row.texts[1]) for row in rng.sample(rows, min(count, len(rows)))]
    with ExitStack() as stack:

        def model() -> LanguageModel:
            backend = BACKENDS[config.backend]
            captions = [caption for caption, _ in siblings]
            return stack.enter_context(closing(backend.open(config, lambda limit: captions[:limit], log)))

        return calibrate(judge_of(config, model), true, rng.sample(siblings, min(count, len(siblings))))
