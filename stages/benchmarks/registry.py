"""What is known of each benchmark: `data/benchmarks.yaml`."""

from functools import cache
from typing import Any

import yaml

from pipeline.assets import DATA

REGISTRY = DATA / "benchmarks.yaml"


@cache
def registry() -> dict[str, Any]:
    """Benchmark -> its title, licence, layout, subsets with their counts and digests, and where its files are from."""
    return dict(yaml.safe_load(REGISTRY.read_text()))


def known(name: str) -> dict[str, Any]:
    """What is known of one benchmark; nothing of one that a script added."""
    return dict(registry().get(name, {}))
