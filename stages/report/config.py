"""Settings of `report`."""

from pathlib import Path

from pydantic import Field

from pipeline.config import Config as BaseConfig


class Config(BaseConfig):
    """What the page shows."""

    title: str = Field("", max_length=120, description="heading of the page; empty = the run's name")
    run: str = Field("", description="name of the run; filled in when a run is opened")
    description: str = Field("", description="what the recipe says of itself; filled in when a run is opened")
    examples: int = Field(12, ge=0, le=100, description="held-out images shown with their negatives and scores")
    thumbnail: int = Field(384, ge=32, le=1024, description="longest side of the images shown, pixels")
    comparison: Path | None = Field(
        None, description="comparison.json of an ablation, whose rows are shown beside this run; null = none"
    )
