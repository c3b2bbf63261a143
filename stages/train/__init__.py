"""train: the training set to a fine-tuned CLIP."""

from stages.train.config import Config
from stages.train.stage import STAGE, check_machine, check_pairs, check_paraphrases, check_towers, check_units

__all__ = ["STAGE", "Config", "check_machine", "check_pairs", "check_paraphrases", "check_towers", "check_units"]
