"""Training curves for those who watch them in TensorBoard or Weights & Biases; the steps table is always written."""

import math
from pathlib import Path
from typing import Any

from pipeline.errors import need_package


class Log:
    """Writes each step's figures to the chosen places.

    Args:
        tensorboard: folder of event files, or None.
        wandb: project, or None.

    Raises:
        UserError: the package for one of them is not installed.
    """

    def __init__(self, tensorboard: Path | None, wandb: str | None) -> None:
        self._board: Any = None
        self._run: Any = None
        if tensorboard is not None:
            need_package("train", "tensorboard", "tensorboard")
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(tensorboard))
        if wandb is not None:
            need_package("train", "wandb", "wandb")
            import wandb as client

            self._run = client.init(project=wandb)

    def write(self, step: dict[str, Any]) -> None:
        """One row of the steps table; terms that are not computed are left out."""
        number = step["step"]
        shown = {name: value for name, value in step.items() if name != "step" and not math.isnan(value)}
        if self._board is not None:
            for name, value in shown.items():
                self._board.add_scalar(f"train/{name}", value, number)
        if self._run is not None:
            self._run.log(shown, step=number)

    def close(self) -> None:
        """Flush what was written."""
        if self._board is not None:
            self._board.close()
        if self._run is not None:
            self._run.finish()
