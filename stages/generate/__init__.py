"""generate: captions to hard negatives, one per type, each of them checked."""

from stages.generate.config import Config
from stages.generate.stage import STAGE

__all__ = ["STAGE", "Config"]
