"""The table of benchmarks, and loading one: reading its files and holding them against what is known of them.

A benchmark is one file of this package, with what reads it and what it averages over, and one line of `BENCHMARKS`;
what its folder holds, and where it comes from, is an entry of data/benchmarks.yaml.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipeline.artifact import Artifact
from pipeline.errors import UserError
from stages.benchmarks import (
    aro,
    bivlc,
    coco_counterfactuals,
    cola,
    colorswap,
    crepe,
    fields,
    half_truths,
    hard_positives,
    heldout,
    long_captions,
    mmvp,
    negbench,
    retrieval,
    robust,
    spec,
    sugarcrepe,
    sugarcrepe_pp,
    valse,
    vismin,
    vl_checklist,
    whatsup,
    winoground,
    zeroshot,
)
from stages.benchmarks.means import Means, Question
from stages.benchmarks.registry import known
from stages.benchmarks.rows import Subset

Family = Literal["composition", "heldout", "retention", "robust"]
"""What is shown together: benchmarks of composition, a dataset's own negatives, what was known before, attacks."""

FromFolder = Callable[[Path], Iterator[Subset]]
FromDataset = Callable[[Artifact, Path, int], list[Subset]]


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        means: what it averages over.
        read: subsets from its folder; None when it has none.
        from_dataset: subsets from the test split of a dataset artifact, given the folder of its images and how many
            images to take at most; None when they do not come from there.
        family: what it is shown with.
        text_may_decide: whether who reads only a row's texts may tell the right one; not where every row has two images
            and the same two texts for both, so that without the images there is only guessing.
    """

    means: Means
    read: FromFolder | None = None
    from_dataset: FromDataset | None = None
    family: Family = "composition"
    text_may_decide: bool = True


BENCHMARKS: dict[str, Benchmark] = {
    "sugarcrepe": Benchmark(sugarcrepe.means, sugarcrepe.read),
    "valse": Benchmark(valse.means, valse.read),
    "aro": Benchmark(aro.means, aro.read),
    "sugarcrepe_pp": Benchmark(sugarcrepe_pp.means, sugarcrepe_pp.read),
    "winoground": Benchmark(winoground.means, winoground.read, text_may_decide=False),
    "cola": Benchmark(cola.means, cola.read, text_may_decide=False),
    "bivlc": Benchmark(bivlc.means, bivlc.read, text_may_decide=False),
    "mmvp": Benchmark(mmvp.means, mmvp.read, text_may_decide=False),
    "hard_positives": Benchmark(hard_positives.means, hard_positives.read),
    "vl_checklist": Benchmark(vl_checklist.means, vl_checklist.read),
    "negbench": Benchmark(negbench.means, negbench.read),
    "whatsup": Benchmark(whatsup.means, whatsup.read),
    "colorswap": Benchmark(colorswap.means, colorswap.read, text_may_decide=False),
    "spec": Benchmark(spec.means, spec.read),
    "vismin": Benchmark(vismin.means, vismin.read, text_may_decide=False),
    "coco_counterfactuals": Benchmark(coco_counterfactuals.means, coco_counterfactuals.read, text_may_decide=False),
    "crepe": Benchmark(crepe.means, crepe.read),
    "half_truths": Benchmark(half_truths.means, half_truths.read),
    "zeroshot": Benchmark(zeroshot.means, zeroshot.read, family="retention"),
    "coco_retrieval": Benchmark(retrieval.means, retrieval.karpathy("coco_retrieval"), family="retention"),
    "flickr30k_retrieval": Benchmark(retrieval.means, retrieval.karpathy("flickr30k_retrieval"), family="retention"),
    "urban1k_retrieval": Benchmark(retrieval.means, long_captions.read_urban1k, family="retention"),
    "dci_retrieval": Benchmark(retrieval.means, long_captions.read_dci, family="retention"),
    "retrieval": Benchmark(retrieval.means, from_dataset=retrieval.from_dataset, family="retention"),
    "heldout": Benchmark(heldout.means, from_dataset=heldout.from_dataset, family="heldout"),
    robust.BENCHMARK: Benchmark(robust.means, family="robust"),
}
"""Every benchmark, in the order in which they are scored and reported."""


def folder_readers() -> dict[str, FromFolder]:
    """Those read from a folder of files, as the table is now."""
    return {name: one.read for name, one in BENCHMARKS.items() if one.read}


def dataset_readers() -> dict[str, FromDataset]:
    """Those made from a dataset artifact, as the table is now."""
    return {name: one.from_dataset for name, one in BENCHMARKS.items() if one.from_dataset}


class About(NamedTuple):
    """What the score of an aggregate tells.

    Attributes:
        benchmark: whose it is; `composition` for the mean over benchmarks of that name.
        family: what it is shown with.
        question: which of the two questions it helps to answer; None = neither.
        text_may_decide: see `Benchmark`.
    """

    benchmark: str
    family: Family
    question: Question | None
    text_may_decide: bool


def about(name: str) -> About:
    """What an aggregate, or a benchmark, tells: about("zeroshot.mean").question is "retention".

    A name that is no benchmark's, such as that of an older scores table, counts as one of composition.
    """
    benchmark = name.partition(".")[0]
    listed = BENCHMARKS.get(benchmark)
    family: Family = listed.family if listed else "composition"
    questions: dict[Family, Question] = {
        "composition": "composition", "heldout": "composition", "retention": "retention",
    }  # fmt: skip
    return About(benchmark, family, questions.get(family), listed is None or listed.text_may_decide)


def available(root: Path) -> list[str]:
    """Benchmarks whose folder is below the root."""
    return [name for name in folder_readers() if (root / name).is_dir()]


def check_names(names: Iterable[str], among: Collection[str] | None = None) -> None:
    """Raise UserError for a name that is not among these; None = every benchmark that has rows of its own."""
    if among is None:
        among = (*folder_readers(), *dataset_readers())
    for name in names:
        if name not in among:
            raise UserError("evaluate", f"there is no benchmark {name!r}", ", ".join(among), "set evaluate.benchmarks")


def load(name: str, root: Path, *, official: bool) -> list[Subset]:
    """All subsets of one benchmark below a root.

    With `official`, files are held against the registry's row counts and digests. Raises UserError for a missing
    folder or file, broken files, a row without a field, changed counts or digests, and when no image at all is there.
    """
    subsets = read(name, root)
    if official:
        assert_official(subsets)
    files = {image.path for subset in subsets for image in subset.images}
    if files and not any(path.is_file() for path in files):
        raise UserError(
            "evaluate",
            f"none of the {len(files)} images of {name} is there, e.g. {min(files)}",
            known(name).get("pictures", "images where its rows name them"),
            f"link the images there, or leave {name!r} out of evaluate.benchmarks",
        )
    return subsets


def read(name: str, root: Path) -> list[Subset]:
    """All subsets of one benchmark below a root, with or without images. Raises UserError as `load`."""
    folder = root / name
    if not folder.is_dir():
        raise UserError(
            "evaluate",
            f"there is no {name} in {root}",
            f"a folder {name} as described in data/benchmarks.yaml",
            f"put it there, or leave {name!r} out of evaluate.benchmarks",
        )
    subsets = list(folder_readers()[name](folder))
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
                fields.FIX,
            )
    return subsets


def assert_official(subsets: Sequence[Subset]) -> None:
    """Hold a benchmark's subsets against the registry: rows, classes, digests. Raises UserError where they differ."""
    name = subsets[0].benchmark
    facts, fix = known(name), "restore the official file, or set evaluate.official=false for a set of your own"
    listed: dict[str, Any] = facts.get("subsets", {})
    rows = sum(len(subset.rows) for subset in subsets)
    if facts.get("valid", rows) != rows:
        raise UserError("evaluate", f"{name} has valid {rows}", f"{facts['valid']}", fix)
    for subset in subsets:
        if listed and subset.name not in listed and not facts.get("open"):
            raise UserError("evaluate", f"{name} has no subset {subset.name!r}", f"one of {', '.join(listed)}", fix)
        expected = listed.get(subset.name, {})
        found = {"valid": len(subset.rows), "sha256": subset.digest, "classes": len(subset.prompts)}
        for key, value in found.items():
            if expected.get(key, value) != value:
                raise UserError("evaluate", f"{name}/{subset.name} has {key} {value}", f"{expected[key]}", fix)
