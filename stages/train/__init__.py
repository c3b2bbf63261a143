"""train: the training set to a fine-tuned CLIP."""

from stages.train.stage import STAGE, Config

__all__ = ["STAGE", "Config"]
