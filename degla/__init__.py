"""degla from Python.

    from degla import Run

    run = Run.open("demo", overrides=["train.lr=1e-3"])
    for stage in run.stages:
        print(run.make(stage))           # reused, or made
    run["scores"].table("scores")        # pyarrow; run.sql("select ...") asks DuckDB
    run.report, run.model()

Importing it brings neither torch nor Prefect. In a checkout the code lies in the packages `pipeline`, `stages` and
`flows`; an installed wheel has the same as `degla.pipeline`, `degla.stages` and `degla.flows`.
"""

from pipeline.errors import TransientError, UserError
from stages.road import STAGES, Recipe, Run

__all__ = ["STAGES", "Recipe", "Run", "TransientError", "UserError"]
