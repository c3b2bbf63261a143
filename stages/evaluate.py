"""evaluate: score the starting model and the fine-tuned one on every benchmark, row by row.

Writes scores (SCORES), one part per model; the manifest's meta holds every aggregate with its interval. Each distinct
picture and each distinct text is encoded once per model; embeddings are kept in pieces below `.work/` until the end,
so a killed run repeats at most one piece.

Shapes: N pictures or texts · D embedding width.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from pipeline import tables
from pipeline.artifact import listing_digest, path_digest
from pipeline.config import Config as BaseConfig
from pipeline.config import placement
from pipeline.errors import UserError
from pipeline.schema import SCORES
from pipeline.stage import Inputs, Progress, Stage, silent
from stages import benchmarks
from stages.benchmarks import Picture, Subset

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from pipeline.clip import Clip

    Floats = NDArray[np.float32]

PIECE = 1024
"""Pictures or texts per file of embeddings."""


class Config(BaseConfig):
    """What is measured, and on what."""

    benchmarks: tuple[str, ...] | None = Field(
        None, description="of sugarcrepe, valse, aro, zeroshot, retrieval, heldout; null = all there are"
    )
    root: Path | None = Field(None, description="folder of benchmarks; null = the built-in world's own")
    official: bool | None = Field(
        None, description="hold files against the registry's counts and digests; null = yes for a root of yours"
    )
    pictures: int = Field(5000, ge=1, description="most held-out pictures used for retrieval and heldout")
    blind: bool = Field(True, description="also ask judges that see no picture, see stages/blind.py")
    resamples: int = Field(2000, ge=100, le=100_000, description="bootstrap resamples behind each interval")
    seed: int = Field(0, ge=0, description="seed of the resampling")
    device: str = placement("auto", description="torch device; auto = cuda when there is one")
    batch: int | None = placement(
        None, ge=1, description="pictures, or texts, per forward pass; null = 32 on a CPU (its caches), else 256"
    )
    workers: int = placement(0, ge=0, description="processes that decode pictures")


def outside(config: Config) -> dict[str, str]:
    """Digests of the registry and of the benchmark files; pictures by name, size and time."""
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
    return digests


def run(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Make the `scores` artifact. Raises UserError for broken or absent benchmarks and for models that do not load."""
    from stages.aggregates import aggregate
    from stages.scoring import JUDGES, blind, score

    subsets, notes = _subsets(config, inputs)
    leaked = _leaked(inputs)
    start = inputs["model"].meta["start"]
    models = {
        "before": {"model": start["model"], "pretrained": start.get("pretrained"), "seed": start.get("seed") or 0},
        "after": {"model": str(inputs["model"].path / "student"), "pretrained": None, "seed": 0},
    }
    descriptions = {}
    for index, (name, named) in enumerate(models.items()):
        path, card = tables.part(out, index), out / ".work" / f"{name}.json"
        if not (path.exists() and card.exists()):
            scorer = Scorer(named, config, out / ".work" / name, _named(progress, name))
            tables.write(path, score(scorer, subsets, name, leaked), SCORES)
            _write_json(card, scorer.description)
        descriptions[name] = _read_json(card)
    if config.blind:
        for index, judge in enumerate(JUDGES, start=len(models)):
            if not (path := tables.part(out, index)).exists():
                tables.write(path, blind(judge, subsets, leaked, progress), SCORES)
    scores = tables.read(out)
    progress("aggregates", 0, 1)
    aggregates = aggregate(scores, resamples=config.resamples, seed=config.seed)
    progress("aggregates", 1, 1)
    _write_json(out / "aggregates.json", aggregates)  # as a file it is content: another aggregate is another artifact
    return {
        "aggregates": aggregates,
        "models": descriptions,
        "notes": notes,
        "official": config.official if config.official is not None else config.root is not None,
        "protocols": {f"{subset.benchmark}.{subset.name}": subset.protocol for subset in subsets},
        "resamples": config.resamples,
    }


def evaluate_model(
    model: str,
    pretrained: str | None = None,
    *,
    root: Path,
    names: Sequence[str] | None = None,
    official: bool = True,
    with_blind: bool = True,
    seed: int = 0,
    resamples: int = 2000,
    device: str = "auto",
    batch: int | None = None,
    workers: int = 0,
    work: Path | None = None,
    progress: Progress = silent,
) -> tuple["pa.Table", dict[str, Any]]:
    """Score any model without a run: (scores table, aggregates by name).

    Args:
        model: as `pipeline.clip.load` takes it; so is `pretrained`.
        root: folder with the benchmarks' own files.
        names: benchmarks; None = every one the root holds.
        official: hold the files against the registry.
        with_blind: also ask the judges that see no picture.
        seed: of random weights, when `pretrained` is None, and of the resampling.
        resamples: of the bootstrap.
        device, batch, workers: placement, as in `Config`.
        work: folder that keeps embeddings between calls; None = memory only.
        progress: callback.

    Raises:
        UserError: as `run`.
    """
    import pyarrow as pa

    from stages.aggregates import aggregate
    from stages.scoring import JUDGES, blind, score

    _check_names(names)
    config = Config(root=root, seed=seed, resamples=resamples, device=device, batch=batch, workers=workers)
    subsets = [
        subset
        for name in (benchmarks.available(root) if names is None else names)
        for subset in benchmarks.load(name, root, official=official)
    ]
    scorer = Scorer({"model": model, "pretrained": pretrained, "seed": seed}, config, work, progress)
    rows = score(scorer, subsets, "model", set())
    for judge in JUDGES if with_blind else ():
        rows += blind(judge, subsets, set(), progress)
    scores = pa.Table.from_pylist(rows, schema=SCORES)
    return scores, aggregate(scores, resamples=resamples, seed=seed)


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
    if not tables.files(dataset.table("leaks")):
        return set()
    with tables.connect({"dataset": dataset.table("dataset"), "leaks": dataset.table("leaks")}) as sql:
        return set(
            sql.execute(
                """select distinct benchmark::varchar, subset, row_id from leaks
                   semi join (from dataset where split = 'train') using (pair_id)"""
            ).fetchall()
        )


# -- encoding ----------------------------------------------------------------------------------------------------------


class Scorer:
    """One model and the embeddings of everything it is asked about; the model is loaded when first needed."""

    def __init__(self, named: dict[str, Any], config: Config, work: Path | None, progress: Progress) -> None:
        self.named, self.config, self.work, self.progress = named, config, work, progress
        self._clip: Clip | None = None

    @property
    def clip(self) -> "Clip":
        """The model."""
        if self._clip is None:
            from pipeline import clip

            self._clip = clip.load(**self.named, device=self.device)
        return self._clip

    @property
    def device(self) -> str:
        """The torch device."""
        if self.config.device != "auto":
            return self.config.device
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def batch(self) -> int:
        """Pictures, or texts, per forward pass."""
        return self.config.batch or (32 if self.device == "cpu" else 256)

    @property
    def description(self) -> dict[str, Any]:
        """What the report says of the model: activation, preprocessing, tokenizer, device."""
        keep = ("activation", "preprocess", "tokenizer", "context_length")
        return {key: self.clip.description.get(key) for key in keep} | {"device": self.device}

    def pictures(self, pictures: Sequence[Picture]) -> tuple[dict[Picture, int], "Floats"]:
        """Row of each picture in image_ND; pictures that are not there have rows of NaN."""
        from pipeline.clip import embed_images

        there = [picture for picture in dict.fromkeys(pictures) if picture.path.is_file()]

        def embed(piece: Sequence[Picture]) -> Any:
            return embed_images(self.clip, piece, batch=self.batch, workers=self.config.workers, device=self.device)

        return self._embedded("pictures", there, embed, dict.fromkeys(pictures))

    def texts(self, texts: Sequence[str]) -> tuple[dict[str, int], "Floats"]:
        """Row of each text in text_ND. Texts with the same tokens share a row, so they tie exactly, as they must."""
        from pipeline.clip import embed_texts

        distinct = list(dict.fromkeys(texts))
        tokens = [tuple(row) for row in self.clip.tokenize(distinct)]
        first: dict[tuple[int, ...], str] = {}
        for text, row in zip(distinct, tokens, strict=True):
            first.setdefault(row, text)
        ordered = [first[row] for row in sorted(first, key=lambda row: (len(row), row))]

        def embed(piece: Sequence[str]) -> Any:
            return embed_texts(self.clip, piece, batch=self.batch, device=self.device)

        at, text_ND = self._embedded("texts", ordered, embed, ordered)
        return {text: at[first[row]] for text, row in zip(distinct, tokens, strict=True)}, text_ND

    def _embedded(
        self, what: str, items: Sequence[Any], embed: Callable[[Sequence[Any]], Any], everything: Any
    ) -> tuple[dict[Any, int], "Floats"]:
        import numpy as np

        pieces = []
        for start in range(0, len(items), PIECE):
            file = self.work / f"{what}-{start // PIECE:05d}.npy" if self.work else None
            if file and file.exists():
                pieces.append(np.load(file))
            else:
                pieces.append(np.asarray(embed(items[start : start + PIECE]), dtype=np.float32))
                if file:
                    _write_array(file, pieces[-1])
            self.progress(what, min(start + PIECE, len(items)), len(items))
        at = {item: index for index, item in enumerate(items)}
        nothing = len(at)
        at |= {item: nothing for item in everything if item not in at}
        width = pieces[0].shape[1] if pieces else 1
        return at, np.concatenate([*pieces, np.full((1, width), np.nan, dtype=np.float32)])


# -- scratch -----------------------------------------------------------------------------------------------------------


def _write_array(path: Path, array: "Floats") -> None:
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    with unfinished.open("wb") as handle:
        np.save(handle, array)
    tables.finish(unfinished, path)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    import json

    path.parent.mkdir(parents=True, exist_ok=True)
    tables.write_text(path, json.dumps(value))


def _read_json(path: Path) -> Any:
    import json

    return json.loads(path.read_text())


STAGE = Stage(
    name="evaluate",
    makes="scores",
    needs=("pairs", "dataset", "model"),
    version=1,
    config=Config,
    outside=outside,
    run=run,
)
