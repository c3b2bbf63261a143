"""The benchmarks there are, by name: loading one, and holding it against what is known of its official files.

Readers of files: readers.py (pairs), zeroshot.py (classes), retrieval.py (captioned images). What a root
holds, and where each set comes from: data/benchmarks.yaml.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact
from pipeline.errors import UserError
from stages.benchmarks import fields as annotations
from stages.benchmarks import readers as benchmark_files
from stages.benchmarks import zeroshot
from stages.benchmarks.readers import REGISTRY, registry
from stages.benchmarks.retrieval import heldout, karpathy, retrieval
from stages.benchmarks.rows import Picture, Row, Rule, Subset, Tie

__all__ = ["FROM_DATASET", "LOADERS", "REGISTRY", "Picture", "Row", "Rule", "Subset", "Tie", "registry"]

LOADERS: dict[str, Callable[[Path], Iterator[Subset]]] = {
    "sugarcrepe": benchmark_files.sugarcrepe,
    "valse": benchmark_files.valse,
    "aro": benchmark_files.aro,
    "sugarcrepe_pp": benchmark_files.sugarcrepe_pp,
    "winoground": benchmark_files.winoground,
    "cola": benchmark_files.cola,
    "bivlc": benchmark_files.bivlc,
    "mmvp": benchmark_files.mmvp,
    "hard_positives": benchmark_files.hard_positives,
    "vl_checklist": benchmark_files.vl_checklist,
    "zeroshot": zeroshot.read,
    "coco_retrieval": karpathy("coco_retrieval"),
    "flickr30k_retrieval": karpathy("flickr30k_retrieval"),
}
"""From a folder of files."""

FROM_DATASET: dict[str, Callable[[Artifact, Path, int], list[Subset]]] = {"retrieval": retrieval, "heldout": heldout}
"""From a dataset artifact."""


def available(root: Path) -> list[str]:
    """Benchmarks whose folder is below the root."""
    return [name for name in LOADERS if (root / name).is_dir()]


def load(name: str, root: Path, *, official: bool) -> list[Subset]:
    """All subsets of one benchmark below a root.

    With `official`, files are held against the registry's row counts and digests. Raises UserError for a missing
    folder or file, broken files, a row without a field, changed counts or digests, and when no picture at all is there.
    """
    subsets = read(name, root)
    if official:
        assert_official(subsets)
    pictures = {picture.path for subset in subsets for picture in subset.shown}
    if pictures and not any(path.is_file() for path in pictures):
        raise UserError(
            "evaluate",
            f"none of the {len(pictures)} pictures of {name} is there, e.g. {min(pictures)}",
            registry()[name]["pictures"],
            f"link the pictures there, or leave {name!r} out of evaluate.benchmarks",
        )
    return subsets


def read(name: str, root: Path) -> list[Subset]:
    """All subsets of one benchmark below a root, with or without pictures. Raises UserError as `load`."""
    folder = root / name
    if not folder.is_dir():
        raise UserError(
            "evaluate",
            f"there is no {name} in {root}",
            f"a folder {name} as described in data/benchmarks.yaml",
            f"put it there, or leave {name!r} out of evaluate.benchmarks",
        )
    subsets = list(LOADERS[name](folder))
    if not subsets:
        raise UserError(
            "evaluate",
            f"{folder} holds no benchmark file",
            "the benchmark's own files",
            f"fill {folder} or leave it out",
        )
    for subset in subsets:
        ids = {row.row_id for row in subset.rows}
        if len(ids) != len(subset.rows):
            raise UserError(
                "evaluate",
                f"{name}/{subset.name} has {len(subset.rows)} rows but {len(ids)} row ids",
                "an id of its own for each row",
                annotations.FIX,
            )
    return subsets


def assert_official(subsets: Sequence[Subset]) -> None:
    """Hold a benchmark's subsets against the registry: rows, classes, digests. Raises UserError where they differ."""
    name = subsets[0].benchmark
    facts, fix = registry()[name], "restore the official file, or set evaluate.official=false for a set of your own"
    known: dict[str, Any] = facts.get("subsets", {})
    rows = sum(len(subset.rows) for subset in subsets)
    if facts.get("valid", rows) != rows:
        raise UserError("evaluate", f"{name} has valid {rows}", f"{facts['valid']}", fix)
    for subset in subsets:
        if known and subset.name not in known and not facts.get("open"):
            raise UserError("evaluate", f"{name} has no subset {subset.name!r}", f"one of {', '.join(known)}", fix)
        expected = known.get(subset.name, {})
        found = {"valid": len(subset.rows), "sha256": subset.digest, "classes": len(subset.prompts)}
        for key, value in found.items():
            if expected.get(key, value) != value:
                raise UserError("evaluate", f"{name}/{subset.name} has {key} {value}", f"{expected[key]}", fix)
