"""Training on several machines that share a home: on each, `torchrun ... -m flows.torchrun RUN`, then `degla run RUN`.

torchrun starts the processes and, when one is lost, all of them anew; they resume from the last checkpoint.
"""

import sys

from flows import progress
from pipeline.errors import UserError
from pipeline.stage import silent
from stages.road import Run
from stages.train import processes


def train(name: str) -> None:
    """Make a run's model together with the other processes. Raises what `Run.make` does."""
    run = Run.open(name)
    with processes.joined():
        if processes.rank() == 0:
            run.make("train", lambda: progress.shown("train"))
            return
        # The first process cannot publish before the others have trained with it, so all of them see the same here.
        stage, fingerprint = run.stages["train"], run.fingerprint("train")
        if run.store.find(stage.makes, fingerprint) is None:
            partial = run.store.partial(stage.makes, fingerprint)
            stage.run(run.config("train"), run.inputs("train"), partial, silent)


if __name__ == "__main__":
    try:
        train(sys.argv[1])
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
