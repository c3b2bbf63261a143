"""Settings of evaluate."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.config import LOCAL, placement
from pipeline.config import Config as BaseConfig

Alpha = Annotated[float, Field(gt=0, lt=1)]
"""Weight of the trained model in a mixture with the one it started from."""


class Robustness(BaseConfig):
    """Accuracy under attack; off unless `rows` is set."""

    rows: int = Field(0, ge=0, description="most rows attacked per subset of pairwise and zero-shot sets; 0 = none")
    eps: float = Field(1.0, ge=0, le=255, description="largest change of a pixel, of 255")
    step: float = Field(1.0, gt=0, le=255, description="change of a pixel per step, of 255")
    steps: int = Field(5, ge=1, description="gradient steps")


class Config(BaseConfig):
    """What is measured, and on what."""

    benchmarks: tuple[str, ...] | None = Field(
        None, description="of those `degla data list` names, retrieval and heldout; null = all there are"
    )
    root: Path | None = Field(None, description="folder of benchmarks; null = the built-in world's own")
    official: bool | None = Field(
        None, description="hold files against the registry's counts and digests; null = yes for a root of yours"
    )
    pictures: int = Field(5000, ge=1, description="most held-out images used for retrieval and heldout")
    blind: bool = Field(True, description="also score text-only baselines (no image), see stages/evaluate/blind.py")
    likelihood: Annotated[str | None, LOCAL] = Field(
        None, description="language model (folder or hub name, by vLLM) whose log-probability is a third such baseline"
    )
    curve: tuple[Alpha, ...] = Field(
        (), description="also score (1 - alpha) before + alpha after for each alpha, e.g. [0.25, 0.5, 0.75] (WiSE-FT)"
    )
    robustness: Robustness = Field(Robustness(), description="accuracy under attack on the image; off by default")
    seed: int = Field(0, ge=0, description="seed of the permutations and of what is attacked")
    device: str = placement("auto", description="torch device; auto = cuda when there is one")
    batch: int | None = placement(
        None, ge=1, description="images, or texts, per forward pass; null = 32 on a CPU (its caches), else 256"
    )
    workers: int = placement(0, ge=0, description="threads that decode images; at least one is used")
