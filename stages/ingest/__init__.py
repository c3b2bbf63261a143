"""ingest: images and captions to pairs."""

from stages.ingest.stage import STAGE, Config

__all__ = ["STAGE", "Config"]
