"""Scoring models: from what loads them and subsets of rows to scores and their aggregates.

`score_artifacts` does it for the stage, with the model a run started from, the trained one and mixtures of the two;
`measure` for any models, without a run. Both are `score_models`. Each distinct image and each distinct text is encoded
once per model (encoder.py), and everything made is kept in pieces, so a killed run repeats at most one piece.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import clip, tables
from pipeline.artifact import SCRATCH, Artifact
from pipeline.clip.tuning import mixture
from pipeline.errors import UserError
from pipeline.schema import OPTIONS, SCORES
from pipeline.stage import Inputs, Progress, silent
from stages.benchmarks.loaders import available, check_names, dataset_readers, folder_readers, load
from stages.benchmarks.rows import Subset
from stages.evaluate import bindings, blind, robustness
from stages.evaluate.aggregates import aggregate
from stages.evaluate.config import Config
from stages.evaluate.embeddings import Embeddings
from stages.evaluate.encoder import Encoder, Load
from stages.evaluate.rows import Judge, Leaked, options
from stages.evaluate.scoring import score, score_blind

MIXTURE = "mix:"
"""Models whose name begins so are mixtures of the start and the trained one."""


class Measured(NamedTuple):
    """Scores of models.

    Attributes:
        scores: rows of the scores table.
        aggregates: as `aggregates.aggregate` gives them.
        descriptions: model -> activation, preprocessing, tokenizer, device; `cut`: benchmark -> how many of its texts
            are longer than the model reads.
        protocols: benchmark.subset -> identity of its measurement.
    """

    scores: pa.Table
    aggregates: dict[str, dict[str, Any]]
    descriptions: dict[str, dict[str, Any]]
    protocols: dict[str, str]


def score_artifacts(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Write the files of a `scores` artifact below `out`, and give the facts for its manifest."""
    subsets, notes = subsets_of(config, inputs)
    start = inputs["model"].meta["start"]
    progress("bindings", 0, 1)
    labels, overlap = bindings.label(subsets, bindings.captions(inputs["dataset"]))
    progress("bindings", 1, 1)
    found = score_models(
        _models(inputs["model"], config.curve),
        subsets,
        config,
        out,
        progress,
        leaked=leaked_rows(inputs["dataset"]),
        labels=labels,
    )
    folders = (config.root or inputs["pairs"].path / "benchmarks", _image_root(inputs["pairs"]))
    tables.write(tables.part(out / "options", 0), options(subsets, folders), OPTIONS)
    splits = bindings.splits(found.scores, seed=config.seed)
    # As a file the aggregates are content: another aggregate is another artifact.
    tables.write_text(out / "aggregates.json", json.dumps({**found.aggregates, **splits}))
    return {
        "aggregates": found.aggregates,
        "bindings": {"splits": splits, "overlap": overlap},
        "curve": [{"alpha": alpha, "scores": _values(found.scores, _mixture(alpha))} for alpha in config.curve],
        "models": found.descriptions,
        "notes": notes,
        "official": config.official if config.official is not None else config.root is not None,
        "protocols": found.protocols,
        "random_start": clip.is_random(start["model"], start.get("pretrained")),
    }


def measure(
    models: Mapping[str, Load | Embeddings],
    config: Config,
    folders: Mapping[str, Path] | None = None,
    progress: Progress = silent,
) -> Measured:
    """Score models without a run; of two called before and after also their paired differences.

    Args:
        models: name -> what loads it, or its embeddings.
        config: what is measured, on the benchmarks of `root`.
        folders: name -> folder that keeps the embeddings of this very model between calls; None = nothing is kept.
        progress: callback.

    Raises:
        UserError: no root or no benchmark there, a benchmark that needs a dataset, a `curve` (it needs a trained model
            and its start), and as the stage does.
    """
    if config.root is None:
        raise UserError("evaluate", "no folder of benchmarks is given", "one, as evaluate.root", "set evaluate.root")
    if config.curve:
        raise UserError(
            "evaluate",
            f"curve = {list(config.curve)} is given without a run",
            "no curve, since it mixes a trained model with its start",
            "leave evaluate.curve out",
        )
    check_names(config.benchmarks or (), folder_readers())
    subsets = [
        subset
        for name in (config.benchmarks or available(config.root))
        for subset in load(name, config.root, official=config.official is not False)
    ]
    if not subsets:
        raise UserError(
            "evaluate", f"{config.root} holds no benchmark", "folders as data/benchmarks.yaml describes", "name another"
        )
    with TemporaryDirectory() as scratch:
        return score_models(models, subsets, config, Path(scratch), progress, folders=folders)


def score_models(
    models: Mapping[str, Load | Embeddings],
    subsets: Sequence[Subset],
    config: Config,
    out: Path,
    progress: Progress,
    *,
    leaked: Leaked | None = None,
    labels: bindings.Labels | None = None,
    folders: Mapping[str, Path] | None = None,
) -> Measured:
    """Score every model, then the text-only baselines, each to its own part below `out`; parts that are there stay.

    Args:
        models: name -> what loads it, called only when its part is not there; or its embeddings.
        subsets: what is scored.
        config: baselines, attack, seed, device.
        out: folder of the parts; unfinished work lies in its `.work/`.
        progress: callback.
        leaked: rows that overlap with training data; None = none is known.
        labels: of rows by the bindings of the training captions; None = these are not known.
        folders: model -> folder that keeps its embeddings; None = below `.work/`.
    """
    work, leaked, labels, descriptions = out / SCRATCH, leaked or set(), labels or {}, {}
    for index, (name, model) in enumerate(models.items()):
        path, card = tables.part(out, index), work / f"{name}.json"
        if not (path.exists() and card.exists()):
            folder = folders[name] if folders else work / name
            shown = partial(_named, progress, name)
            encoder = (
                model
                if isinstance(model, Embeddings)
                else Encoder(model, folder, shown, device=config.device, batch=config.batch, workers=config.workers)
            )
            rows = score(encoder, subsets, name, leaked)
            described = encoder.description
            if isinstance(encoder, Encoder):
                described |= {"cut": _cut(encoder, subsets)}
                if config.robustness.rows and not name.startswith(MIXTURE):
                    rows += robustness.score(encoder, subsets, config.robustness, name, leaked, config.seed)
            tables.write(path, bindings.labelled(rows, labels), SCORES)
            tables.write_text(card, json.dumps(described))
        descriptions[name] = json.loads(card.read_text())
    for index, (name, judge) in enumerate(_judges(config, subsets, work, progress).items(), start=len(models)):
        if not (path := tables.part(out, index)).exists():
            rows = score_blind(name, judge(), subsets, leaked, progress)
            tables.write(path, bindings.labelled(rows, labels), SCORES)
    scores = tables.read(out)
    progress("aggregates", 0, 1)
    aggregates = aggregate(scores, seed=config.seed)
    progress("aggregates", 1, 1)
    protocols = {f"{subset.benchmark}.{subset.name}": subset.protocol for subset in subsets}
    return Measured(scores, aggregates, descriptions, protocols)


def _cut(encoder: Encoder, subsets: Sequence[Subset]) -> dict[str, dict[str, int]]:
    """Benchmark -> how many of its distinct texts the model does not read to the end, where there is one."""
    texts: dict[str, set[str]] = {}
    for subset in subsets:
        asked = {text for row in subset.rows for text in row.texts}
        texts.setdefault(subset.benchmark, set()).update(asked, *subset.prompts)
    counted = {name: {"cut": encoder.cut(sorted(found)), "of": len(found)} for name, found in texts.items()}
    return {name: one for name, one in counted.items() if one["cut"]}


def _named(progress: Progress, model: str, what: str, done: int, total: int) -> None:
    progress(f"{what}, {model}", done, total)


# -- which models ------------------------------------------------------------------------------------------------------


def _models(model: Artifact, curve: Sequence[float]) -> dict[str, Load]:
    """Name -> what loads it: the start, the trained model, and the mixtures between."""
    start = model.meta["start"]
    found: dict[str, Load] = {
        "before": partial(clip.load, **start),
        "after": partial(clip.load, str(model.path / "student")),
    }
    return found | {_mixture(alpha): partial(mixture, model, alpha) for alpha in curve}


def _mixture(alpha: float) -> str:
    return f"{MIXTURE}{alpha:g}"


def _judges(
    config: Config, subsets: Sequence[Subset], work: Path, progress: Progress
) -> dict[str, Callable[[], Judge]]:
    """Name -> what makes the text-only baseline, called only when it is needed."""
    found: dict[str, Callable[[], Judge]] = {}
    if config.blind:
        found |= {"rule": lambda: blind.rule, "ngrams": lambda: blind.ngrams}
    if config.likelihood:
        found["likelihood"] = partial(blind.likelihood, config.likelihood, subsets, work, progress)
    return found


def _values(scores: pa.Table, model: str) -> dict[str, float | None]:
    """The aggregates of one model, without intervals."""
    found = aggregate(scores.filter(pc.equal(scores["model"].cast(pa.string()), model)))
    return {name: one[model]["value"] for name, one in found.items()}


# -- on which rows -----------------------------------------------------------------------------------------------------


def subsets_of(config: Config, inputs: Inputs) -> tuple[list[Subset], list[str]]:
    """The subsets a run is scored on, and notes on those that could not be had.

    Raises:
        UserError: a benchmark is absent or broken, or there is none at all.
    """
    pairs, dataset = inputs["pairs"], inputs["dataset"]
    root = config.root or pairs.path / "benchmarks"
    official = config.official if config.official is not None else config.root is not None
    chosen = config.benchmarks
    if chosen is None:
        chosen = (*available(root), *dataset_readers())
    subsets: list[Subset] = []
    notes = []
    for name in chosen:
        if name in folder_readers():
            subsets += load(name, root, official=official)
            continue
        made = dataset_readers()[name](dataset, _image_root(pairs), config.pictures)
        if not made:
            notes.append(f"{name}: the dataset has no test split to ask about")
        subsets += made
    if not subsets:
        raise UserError(
            "evaluate",
            f"there is nothing to measure: no benchmark in {root}; {'; '.join(notes)}",
            "a benchmark or a test split",
            "set evaluate.root to a folder of benchmarks, or keep a test split in ingest",
        )
    return subsets, notes


def _image_root(pairs: Artifact) -> Path:
    return pairs.path / str(pairs.meta["image_root"])


def leaked_rows(dataset: Artifact) -> Leaked:
    """Benchmark rows that share an image or caption with a training pair of the dataset."""
    if not tables.files(dataset.table_folder("leaks")):
        return set()
    with tables.connect({"dataset": dataset.table_folder("dataset"), "leaks": dataset.table_folder("leaks")}) as sql:
        return set(
            sql.execute(
                """select distinct benchmark::varchar, subset, row_id from leaks
                   semi join (from dataset where split = 'train') using (pair_id)"""
            ).fetchall()
        )
