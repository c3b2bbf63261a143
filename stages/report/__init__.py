"""report: everything to one page."""

from stages.report.stage import STAGE, Config

__all__ = ["STAGE", "Config"]
