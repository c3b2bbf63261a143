"""ingest: pairs of image and caption from any source, and what could not be used."""

from stages.ingest.config import Config
from stages.ingest.stage import STAGE

__all__ = ["STAGE", "Config"]
