"""ingest: images with captions from any source become the `pairs` table; what cannot be used is kept with a reason.

Writes pairs (PAIRS), pairs_rejected (PAIRS_REJECTED), pairs_negatives (PAIRS_NEGATIVES) where the source brings
negatives, images/ where it packs images, and benchmarks/ for the built-in world.
"""

from pathlib import Path
from typing import Any

from pipeline.artifact import listing_digest, path_digest
from pipeline.stage import Inputs, Progress, Stage
from stages.ingest import sources
from stages.ingest.config import Config


def outside(config: Config) -> dict[str, str]:
    """Digests of the captions file (content) and the image folder (names, sizes, times)."""
    source = sources.find(config.source, config.root, config.format)
    content = path_digest if source.images else listing_digest  # files that hold images are too large to hash
    digests = {f"captions {name}": content(path) for name, path in (source.files | source.beside).items()}
    return digests | ({"images": listing_digest(source.images)} if source.images else {})


def run(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Make the `pairs` artifact.

    Raises UserError when the captions file cannot be read, or when too few rows are usable.
    """
    from stages.ingest.pairs import make  # Arrow, DuckDB, and the world's drawing

    return make(config, out, progress)


STAGE = Stage(name="ingest", makes="pairs", needs=(), version=6, config=Config, outside=outside, run=run)
