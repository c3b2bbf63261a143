"""degla from Python.

    from degla import Run

    run = Run.open("demo", overrides=["train.lr=1e-3"])
    for stage in run.stages:
        print(run.make(stage))           # reused, or made
    run["scores"].table("scores")        # pyarrow; run.sql("select ...") asks DuckDB
    run.report, run.model()              # clip.embed_texts(run.model(), ["a red cup"])

Importing it brings neither torch nor Prefect. In a checkout the code lies in the packages `pipeline`, `stages` and
`flows`; an installed wheel has the same as `degla.pipeline`, `degla.stages` and `degla.flows`. What is named here is
imported from `degla` in both.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pipeline import clip
from pipeline.errors import TransientError, UserError
from stages.road import STAGES, Recipe, Run, validated
from stages.train.terms import TERMS, Term

if TYPE_CHECKING:
    from stages.evaluate.measure import Measured

__all__ = ["STAGES", "TERMS", "Recipe", "Run", "Term", "TransientError", "UserError", "clip", "measure"]


def measure(models: "Mapping[str, Callable[[], clip.Clip]]", **settings: Any) -> "Measured":
    """Score models on a folder of benchmarks, without a run; of `before` and `after` also their paired differences.

    Args:
        models: name -> what loads it, e.g. `partial(clip.load, "ViT-B-32", "openai")`.
        settings: of `evaluate`, without the section's name: `root` (the folder), `benchmarks`, `official`, ...

    Raises UserError for a wrong setting, and as `stages.evaluate.measure.measure` does.
    """
    from stages.evaluate import measure as measuring  # brings scipy

    return measuring.measure(models, validated({"evaluate": settings}).evaluate)
