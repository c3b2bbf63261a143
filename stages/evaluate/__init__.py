"""evaluate: score the starting model and the trained one on every benchmark, row by row."""

from stages.evaluate.config import Config
from stages.evaluate.stage import STAGE, check_pairs

__all__ = ["STAGE", "Config", "check_pairs"]
