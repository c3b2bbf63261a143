"""Settings of assemble."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pipeline.config import LOCAL, placement
from pipeline.config import Config as BaseConfig
from pipeline.negative_types import NEGATIVE_TYPES


class Config(BaseConfig):
    """What enters the training set."""

    tokenizer: Annotated[str, LOCAL] = Field(
        "ViT-B-32", description="open_clip model, or local folder, whose tokenizer is used"
    )
    min_negatives: int = Field(
        0, ge=0, le=len(NEGATIVE_TYPES), description="pairs with fewer accepted negatives are left out"
    )
    duplicates: Literal["keep", "drop"] = Field(
        "keep", description="one caption (case, punctuation aside) repeated on copies of an image: kept, or kept once"
    )
    leaks: Literal["keep", "flag", "drop"] = Field(
        "flag", description="pairs that overlap with a benchmark: only counted, flagged, or left out of training"
    )
    leaks_from: Path | None = Field(
        None, description="folder of benchmarks to look for; null = the built-in world's own, where there are any"
    )
    leak_benchmarks: tuple[str, ...] = Field(("sugarcrepe", "valse", "aro"), description="which of them")
    vg_map: Path | None = Field(None, description="Visual Genome's image_data.json, to know its COCO images")
    seed: int = Field(0, ge=0, description="seed of the order in which rows are stored")
    shard: int = Field(65_536, ge=1, le=65_536, description="rows per file; a kill costs those in hand, two at most")
    memory: str = placement("2GB", description="memory DuckDB may use before it spills to disk")
