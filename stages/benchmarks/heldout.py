"""Held-out negatives: each caption of a dataset's test split against its own negatives, one subset per type.

A text that a caption has under two types is asked about once, as the first of them.
"""

from pathlib import Path

from pipeline.artifact import Artifact
from pipeline.negative_types import types_in
from stages.benchmarks.means import Aggregate, Present, pairwise
from stages.benchmarks.retrieval import test_split
from stages.benchmarks.rows import ImageRef, Row, Subset


def from_dataset(dataset: Artifact, image_root: Path, most: int) -> list[Subset]:
    """One subset per negative type, of at most `most` images of the test split."""
    captions = test_split(dataset, most)
    subsets = []
    types = types_in(captions[0]) if captions else ()
    for place, kind in enumerate(types):
        rows = tuple(
            Row(row["pair_id"], row["image_key"], ImageRef(image_root / row["image_uri"]), (row["caption"], row[kind]))
            for row in captions
            if row[kind] is not None and row[kind] not in [row[earlier] for earlier in types[:place]]
        )
        if rows:
            subsets.append(Subset("heldout", kind, "choice", "wrong", dataset.digest, rows))
    return subsets


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Over the types, over all rows, and each type."""
    return pairwise(benchmark, names, present)
