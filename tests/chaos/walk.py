"""Stages in a process of their own, without Prefect: `python -m tests.chaos.walk RECIPE HOME [STAGE...]`."""

import sys
from pathlib import Path

from flows import progress, recipe, road
from pipeline.artifact import Store
from pipeline.errors import UserError


def main(source: str, home: str, *stages: str) -> None:
    store, chosen = Store(Path(home)), recipe.load(source)
    run = Path(source).stem
    road.keep_recipe(store, run, chosen)
    for name in road.chosen(stages):
        road.run_stage(store, run, chosen, name, lambda name=name: progress.shown(name))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
