"""assemble: pairs and negatives to the training set."""

from stages.assemble.stage import STAGE, Config

__all__ = ["STAGE", "Config"]
