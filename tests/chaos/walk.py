"""Stages in a process of their own, without Prefect: `python -m tests.chaos.walk RECIPE HOME [STAGE...]`."""

import sys
from functools import partial
from pathlib import Path

from flows import progress
from pipeline.errors import UserError
from stages.road import Run, chosen


def main(source: str, home: str, *stages: str) -> None:
    run = Run.open(Path(source).stem, recipe=source, home=home)
    names = chosen(stages)
    with run.at_work(names):
        for name in names:
            run.make(name, partial(progress.shown, name))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
