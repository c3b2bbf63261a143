"""report: one page that says what was made, whether it helped, and how sure that is."""

from stages.report.config import Config
from stages.report.stage import STAGE

__all__ = ["STAGE", "Config"]
