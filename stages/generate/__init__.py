"""generate: captions to hard negatives."""

from stages.generate.stage import STAGE, Config

__all__ = ["STAGE", "Config"]
