"""assemble: the training set, one row per pair, validated, with tokens."""

from stages.assemble.config import Config
from stages.assemble.stage import STAGE

__all__ = ["STAGE", "Config"]
