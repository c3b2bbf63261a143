"""evaluate: a CLIP to scores, before and after."""

from stages.evaluate.stage import STAGE, Config

__all__ = ["STAGE", "Config"]
