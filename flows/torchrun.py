"""Training on several machines that share a home: on each, `torchrun ... -m flows.torchrun RUN`, then `degla run RUN`.

torchrun starts the processes and, when one is lost, all of them anew; they go on from the last checkpoint.
"""

import sys

from flows import progress, road
from pipeline.artifact import Store, digest
from pipeline.errors import UserError
from pipeline.stage import silent
from stages.train import processes


def train(run: str) -> None:
    """Make a run's model together with the other processes. Raises what `flows.road.run_stage` does."""
    store, stage = Store.default(), road.STAGES["train"]
    recipe = road.run_recipe(store, run, "")
    with processes.joined():
        if processes.rank() == 0:
            road.run_stage(store, run, recipe, "train", lambda: progress.shown("train"))
            return
        # The first process cannot publish before the others have trained with it, so all of them see the same here.
        inputs = road.inputs_of(store, run, stage)
        fingerprint = digest(road.identity(stage, recipe.train, inputs))
        if store.find(stage.makes, fingerprint) is None:
            stage.run(recipe.train, inputs, store.partial(stage.makes, fingerprint), silent)


if __name__ == "__main__":
    try:
        train(sys.argv[1])
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
