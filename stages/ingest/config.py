"""Settings of ingest."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config import Config as BaseConfig
from pipeline.config import OneOf, placement
from stages.ingest.records import Format
from stages.ingest.sources import SOURCES


class World(BaseConfig):
    """The built-in world: what to draw."""

    pictures: int = Field(1500, ge=10, description="training images to draw")
    captions: int = Field(2, ge=1, le=5, description="captions per image")
    concepts: Literal["wide", "narrow"] = Field("narrow", description="wide: everything; narrow: the fine-tuning set")
    wide_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of images drawn with the wide concepts whatever `concepts` says",
    )
    size: int = Field(64, ge=32, le=512, description="image side, pixels")
    seed: int = Field(42, ge=0, description="seed of the training images")
    benchmark_seed: int = Field(42, ge=0, description="seed of the evaluation sets")
    benchmark_rows: int = Field(150, ge=0, description="rows per evaluation subset; 0 = no evaluation sets")


class Config(BaseConfig):
    """Where pairs come from and which are usable."""

    source: Annotated[str, OneOf(SOURCES)] = Field("csv", description="kind of source; scenes = the built-in world")
    root: Path | None = Field(None, description="folder of the captions file and the images")
    format: Format = Field(Format(), description="layout of the source")
    max_words: int = Field(60, ge=1, description="longest caption kept, words (CLIP reads 77 tokens)")
    max_pixels: int = Field(
        89_478_485,
        ge=1,
        le=178_956_970,
        description="largest image opened, pixels; Pillow opens none above the maximum",
    )
    max_reject_rate: float = Field(0.5, ge=0, le=1, description="share of rows rejected above which ingest fails")
    val_share: float = Field(0.05, ge=0, lt=1, description="share of images held out for checkpoint selection")
    test_share: float = Field(0.1, ge=0, lt=1, description="share of images held out for evaluation")
    split_seed: int = Field(0, ge=0, description="seed of the split; an image's split depends on its bytes and this")
    world: World = Field(World(), description="settings of the built-in world (source: scenes)")
    shard: int = Field(2048, ge=1, description="rows per part; the most that a kill can cost")
    workers: int = placement(2, ge=1, description="threads that open images")

    @model_validator(mode="after")
    def _leaves_images_to_train_on(self) -> "Config":
        if self.val_share + self.test_share >= 1:
            raise ValueError(
                f"val_share and test_share below 1 together; {self.val_share} + {self.test_share} leave none"
            )
        return self
