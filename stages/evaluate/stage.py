"""evaluate: score the starting model and the fine-tuned one on every benchmark, row by row.

Writes scores (SCORES), one part per model or judge; the manifest's meta holds every aggregate with its interval. Each
distinct picture and each distinct text is encoded once per model (encoder.py), and everything made is kept in
pieces below `.work/` until the end, so a killed run repeats at most one piece.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field

from pipeline import tables
from pipeline.artifact import Artifact, listing_digest, path_digest
from pipeline.config import Config as BaseConfig
from pipeline.config import placement
from pipeline.errors import UserError
from pipeline.schema import SCORES
from pipeline.stage import Inputs, Progress, Stage, silent
from stages.benchmarks import loaders as benchmarks
from stages.benchmarks.loaders import Subset
from stages.evaluate.robustness import Robustness

if TYPE_CHECKING:
    import pyarrow as pa

    from stages.evaluate.blind import Judge
    from stages.evaluate.encoder import Encoder, Load

Alpha = Annotated[float, Field(gt=0, lt=1)]


class Config(BaseConfig):
    """What is measured, and on what."""

    benchmarks: tuple[str, ...] | None = Field(
        None, description="of those `degla data list` names, retrieval and heldout; null = all there are"
    )
    root: Path | None = Field(None, description="folder of benchmarks; null = the built-in world's own")
    official: bool | None = Field(
        None, description="hold files against the registry's counts and digests; null = yes for a root of yours"
    )
    pictures: int = Field(5000, ge=1, description="most held-out pictures used for retrieval and heldout")
    blind: bool = Field(True, description="also ask judges that see no picture, see stages/evaluate/blind.py")
    likelihood: str | None = Field(
        None, description="language model (folder or hub name, by vLLM) whose log-probability is a third blind judge"
    )
    curve: tuple[Alpha, ...] = Field(
        (), description="also score (1 - alpha) start + alpha trained for each alpha, e.g. [0.25, 0.5, 0.75] (WiSE-FT)"
    )
    robustness: Robustness = Field(Robustness(), description="accuracy under attack on the picture; off by default")
    resamples: int = Field(2000, ge=100, le=100_000, description="bootstrap resamples behind each interval")
    seed: int = Field(0, ge=0, description="seed of the resampling and of what is attacked")
    device: str = placement("auto", description="torch device; auto = cuda when there is one")
    batch: int | None = placement(
        None, ge=1, description="pictures, or texts, per forward pass; null = 32 on a CPU (its caches), else 256"
    )
    workers: int = placement(0, ge=0, description="threads that decode pictures; at least one is used")


def outside(config: Config) -> dict[str, str]:
    """Digests of the registry, of the benchmark files (pictures by name, size and time) and of the language model."""
    digests = {"registry": path_digest(benchmarks.REGISTRY)}
    _check_names(config.benchmarks)
    if config.root:
        if not config.root.is_dir():
            raise UserError(
                "evaluate", f"there is no folder {config.root}", "a folder of benchmarks", "set evaluate.root"
            )
        chosen = config.benchmarks or benchmarks.available(config.root)
        for name in chosen:
            if (config.root / name).is_dir():
                digests[name] = listing_digest(config.root / name)
    if config.likelihood:
        from stages.language_models.folders import folder_digest, local_model

        folder = local_model(config.likelihood)
        digests["likelihood"] = folder_digest(folder) if folder else config.likelihood
    return digests


def run(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Make the `scores` artifact. Raises UserError for broken or absent benchmarks and for models that do not load."""
    from stages.evaluate.aggregates import aggregate

    subsets, notes = _subsets(config, inputs)
    leaked = _leaked(inputs)
    models = _models(inputs["model"], config.curve)
    work = out / ".work"
    descriptions = {}
    for index, (name, load) in enumerate(models.items()):
        path, card = tables.part(out, index), work / f"{name}.json"
        if not (path.exists() and card.exists()):
            encoder = _encoder(load, config, work / name, _named(progress, name))
            tables.write(path, _scored(encoder, subsets, name, leaked, config), SCORES)
            _write_json(card, encoder.description)
        descriptions[name] = json.loads(card.read_text())
    for index, (name, judge) in enumerate(_judges(config, subsets, work, progress).items(), start=len(models)):
        if not (path := tables.part(out, index)).exists():
            from stages.evaluate.scoring import blind

            tables.write(path, blind(name, judge(), subsets, leaked, progress), SCORES)
    scores = tables.read(out)
    progress("aggregates", 0, 1)
    aggregates = aggregate(scores, resamples=config.resamples, seed=config.seed)
    progress("aggregates", 1, 1)
    _write_json(out / "aggregates.json", aggregates)  # as a file it is content: another aggregate is another artifact
    return {
        "aggregates": aggregates,
        "curve": [{"alpha": alpha, "scores": _values(scores, _mixture(alpha))} for alpha in config.curve],
        "models": descriptions,
        "notes": notes,
        "official": config.official if config.official is not None else config.root is not None,
        "protocols": {f"{subset.benchmark}.{subset.name}": subset.protocol for subset in subsets},
        "resamples": config.resamples,
    }


class Measured(NamedTuple):
    """Scores of models without a run.

    Attributes:
        scores: rows of the scores table.
        aggregates: as `stages.aggregates.aggregate` gives them.
        descriptions: model -> activation, preprocessing, tokenizer, device.
        protocols: benchmark.subset -> identity of its measurement.
    """

    scores: "pa.Table"
    aggregates: dict[str, dict[str, Any]]
    descriptions: dict[str, dict[str, Any]]
    protocols: dict[str, str]


def measure(
    models: Mapping[str, "Load"],
    config: Config,
    folders: Mapping[str, Path] | None = None,
    progress: Progress = silent,
) -> Measured:
    """Score models without a run; of two called before and after also their paired differences.

    Args:
        models: name -> what loads it.
        config: what is measured; `root` must be set, `curve` and `pictures` have no meaning here.
        folders: name -> folder that keeps what this very model computes, between calls; None = nothing is kept.
        progress: callback.

    Raises:
        UserError: as `run`.
    """
    with TemporaryDirectory() as scratch:
        return _measure(models, config, folders or {name: Path(scratch) / name for name in models}, scratch, progress)


def _measure(
    models: Mapping[str, "Load"], config: Config, folders: Mapping[str, Path], scratch: str, progress: Progress
) -> Measured:
    import pyarrow as pa

    from stages.evaluate.aggregates import aggregate
    from stages.evaluate.scoring import blind

    assert config.root
    _check_names(config.benchmarks)
    subsets = [
        subset
        for name in (config.benchmarks or benchmarks.available(config.root))
        for subset in benchmarks.load(name, config.root, official=config.official is not False)
    ]
    if not subsets:
        raise UserError(
            "evaluate", f"{config.root} holds no benchmark", "folders as data/benchmarks.yaml describes", "name another"
        )
    rows, descriptions = [], {}
    for name, load in models.items():
        encoder = _encoder(load, config, folders[name], _named(progress, name))
        rows += _scored(encoder, subsets, name, set(), config)
        descriptions[name] = encoder.description
    for name, judge in _judges(config, subsets, Path(scratch), progress).items():
        rows += blind(name, judge(), subsets, set(), progress)
    scores = pa.Table.from_pylist(rows, schema=SCORES)
    aggregates = aggregate(scores, resamples=config.resamples, seed=config.seed)
    protocols = {f"{subset.benchmark}.{subset.name}": subset.protocol for subset in subsets}
    return Measured(scores, aggregates, descriptions, protocols)


# -- who is asked ------------------------------------------------------------------------------------------------------


def _models(model: Artifact, curve: Sequence[float]) -> dict[str, "Load"]:
    """Name -> what loads it: the start, the trained model, and the mixtures between."""
    from pipeline import clip
    from pipeline.clip.tuning import mixture

    start = model.meta["start"]
    found: dict[str, Load] = {
        "before": partial(clip.load, start["model"], start.get("pretrained"), seed=start.get("seed") or 0),
        "after": partial(clip.load, str(model.path / "student")),
    }
    return found | {_mixture(alpha): partial(mixture, model, alpha) for alpha in curve}


def _mixture(alpha: float) -> str:
    return f"mix:{alpha:g}"


def _encoder(load: "Load", config: Config, work: Path, progress: Progress) -> "Encoder":
    from stages.evaluate.encoder import Encoder

    return Encoder(load, work, progress, device=config.device, batch=config.batch, workers=config.workers)


def _scored(
    encoder: "Encoder", subsets: Sequence[Subset], name: str, leaked: set[tuple[str, str, str]], config: Config
) -> list[dict[str, Any]]:
    from stages.evaluate import robustness
    from stages.evaluate.scoring import score

    rows = score(encoder, subsets, name, leaked)
    if config.robustness.rows and not name.startswith("mix:"):
        rows += robustness.score(encoder, subsets, config.robustness, name, leaked, config.seed)
    return rows


def _judges(
    config: Config, subsets: Sequence[Subset], work: Path, progress: Progress
) -> dict[str, Callable[[], "Judge"]]:
    """Name -> what makes the judge, called only when it is asked."""
    from stages.evaluate import blind

    found: dict[str, Callable[[], Judge]] = {}
    if config.blind:
        found |= {"rule": lambda: blind.rule, "ngrams": lambda: blind.ngrams}
    if config.likelihood:
        found["likelihood"] = partial(blind.likelihood, config.likelihood, subsets, work, progress)
    return found


def _values(scores: "pa.Table", model: str) -> dict[str, float | None]:
    """The aggregates of one model, without intervals."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from stages.evaluate.aggregates import aggregate

    found = aggregate(scores.filter(pc.equal(scores["model"].cast(pa.string()), model)), resamples=1)
    return {name: one[model]["value"] for name, one in found.items()}


# -- what is asked -----------------------------------------------------------------------------------------------------


def _named(progress: Progress, model: str) -> Progress:
    return lambda what, done, total: progress(f"{what}, {model}", done, total)


def _check_names(names: Sequence[str] | None) -> None:
    known = (*benchmarks.LOADERS, *benchmarks.FROM_DATASET)
    for name in names or ():
        if name not in known:
            raise UserError("evaluate", f"there is no benchmark {name!r}", ", ".join(known), "set evaluate.benchmarks")


def _subsets(config: Config, inputs: Inputs) -> tuple[list[Subset], list[str]]:
    """The questions, and notes on what could not be asked."""
    pairs, dataset = inputs["pairs"], inputs["dataset"]
    root = config.root or pairs.path / "benchmarks"
    official = config.official if config.official is not None else config.root is not None
    chosen = config.benchmarks
    if chosen is None:
        chosen = (*benchmarks.available(root), *benchmarks.FROM_DATASET)
    subsets: list[Subset] = []
    notes = []
    for name in chosen:
        if name in benchmarks.LOADERS:
            subsets += benchmarks.load(name, root, official=official)
            continue
        made = benchmarks.FROM_DATASET[name](dataset, pairs.path / pairs.meta["image_root"], config.pictures)
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


def _leaked(inputs: Inputs) -> set[tuple[str, str, str]]:
    """Benchmark rows (benchmark, subset, row_id) that share a picture or caption with a training pair."""
    dataset = inputs["dataset"]
    if not tables.files(dataset.table_folder("leaks")):
        return set()
    with tables.connect({"dataset": dataset.table_folder("dataset"), "leaks": dataset.table_folder("leaks")}) as sql:
        return set(
            sql.execute(
                """select distinct benchmark::varchar, subset, row_id from leaks
                   semi join (from dataset where split = 'train') using (pair_id)"""
            ).fetchall()
        )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tables.write_text(path, json.dumps(value))


STAGE = Stage(
    name="evaluate",
    makes="scores",
    needs=("pairs", "dataset", "model"),
    version=2,
    config=Config,
    outside=outside,
    run=run,
)
