"""A run from Python: make its stages, ask its tables, find its report.

    python examples/quickstart.py                       # the demo: minutes on two cores, by vLLM
    python examples/quickstart.py mine.yaml my-run      # another recipe; the run's name is its own unless it is given

Give the command again and every stage is reused. `DEGLA_HOME` says where runs are kept, `runs/` here by default.
"""

import sys
from pathlib import Path

from degla import Run


def main(recipe: str = "demo", name: str = "") -> None:
    """Make every stage of the recipe's run and print what came of it."""
    run = Run.open(name or Path(recipe).stem, recipe=recipe)
    for stage in run.stages:
        print(run.make(stage))  # reused, or made; raises degla.UserError with one line when something is wrong

    scores = run["scores"].table("scores", columns=["model", "benchmark", "correct"])  # a pyarrow.Table
    print(f"{scores.num_rows:,} scores as Arrow, columns {', '.join(scores.column_names)}")

    # DuckDB over the same Parquet files; `correct` is NaN where a picture is missing.
    print(
        run.sql(
            """select benchmark, subset, count(*) filter (model = 'after') as rows,
                      round(avg(correct) filter (model = 'before'), 3) as before,
                      round(avg(correct) filter (model = 'after'), 3) as after
               from scores where not isnan(correct) and model in ('before', 'after') group by all order by all"""
        )
    )
    print(f"report: {run.report}")


if __name__ == "__main__":  # stages may start processes, and those import this file
    main(*sys.argv[1:])
