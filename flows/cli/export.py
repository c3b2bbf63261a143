"""`degla export`: a run's model, dataset or scores in the form that other projects read."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from flows.terminal import Json, out, print_json
from pipeline.artifact import Artifact
from pipeline.errors import UserError
from pipeline.home import open_store
from pipeline.store import Store

RUN_THAT_HAS = {
    "model": ("a trained run", " --until train"),
    "pairs": ("an ingested run", " --until ingest"),
    "negatives": ("a run with negatives", " --until generate"),
    "dataset": ("an assembled run", " --until assemble"),
    "scores": ("an evaluated run", ""),
}
"""Kind of artifact -> the run that has it, and how `degla run` is told to stop there."""


class Asked(NamedTuple):
    """What was asked for: a run, a format, where to write, and what some formats take beside it."""

    store: Store
    run: str
    format: Any
    target: Path
    split: str
    alpha: float
    about: Path | None

    def held(self, kind: str) -> Artifact:
        """An artifact of the run. Raises UserError when it has none."""
        artifact = self.store.linked(self.run, kind)
        if artifact is None:
            expected, until = RUN_THAT_HAS[kind]
            raise UserError("export", f"run {self.run!r} has no {kind}", expected, f"degla run {self.run}{until}")
        return artifact


Told = tuple[str, dict[str, Any]]
"""The line for a person, the facts for a program."""


def export(
    name: Annotated[str, typer.Argument(help="run to look at")],
    kind: Annotated[
        str,
        typer.Argument(
            help="model: open_clip, transformers, onnx; dataset: negclip_tsv, degla_json, webdataset, croissant; "
            "scores: clip_benchmark, mteb"
        ),
    ],
    target: Annotated[
        Path, typer.Argument(help="where to write: a file for negclip_tsv and degla_json, else a folder")
    ],
    split: Annotated[str, typer.Option(help="of the dataset: train, val or test")] = "train",
    alpha: Annotated[float, typer.Option(help="of the model: 1 = trained, 0 = start (WiSE-FT)", min=0, max=1)] = 1.0,
    about: Annotated[Path | None, typer.Option(help="of croissant: YAML of license, url, creator, rai:... ")] = None,
    as_json: Json = False,
) -> None:
    """Write a run's model for another library, or its dataset or scores in another project's format."""
    if kind not in FORMATS:
        raise UserError("export", f"no format {kind!r}", f"one of {', '.join(FORMATS)}", "name one")
    line, facts = FORMATS[kind](Asked(open_store(), name, kind, target, split, alpha, about))
    if as_json:
        print_json({"format": kind, "target": target, **facts})
    else:
        out.print(line)


def _model(asked: Asked) -> Told:
    from stages.export import models

    model = asked.held("model")
    scores = asked.store.linked(asked.run, "scores")
    off = models.export_model(model, asked.format, asked.target, asked.alpha, scores)
    line = f"{asked.format} in {asked.target}; read back, no embedding differs by more than {off:.1e}"
    return line, {"differs_by": off}


def _dataset(asked: Asked) -> Told:
    from stages.export import datasets

    dataset, pairs = asked.held("dataset"), asked.held("pairs")
    rows = datasets.export(dataset, pairs.path / pairs.meta["image_root"], asked.format, asked.target, asked.split)
    return f"{rows:,} rows of {asked.split} in {asked.target}", {"split": asked.split, "rows": rows}


def _croissant(asked: Asked) -> Told:
    from stages.export import croissant

    dataset, pairs, negatives = asked.held("dataset"), asked.held("pairs"), asked.held("negatives")
    to_say = croissant.export(dataset, pairs, negatives, asked.target, asked.about)
    asks = f"; to say with --about: {', '.join(to_say)}" if to_say else ""
    return f"{asked.target / croissant.FILE}{asks}", {"to_say": to_say}


def _scores(asked: Asked) -> Told:
    from stages.export import mteb, results

    scores, model = asked.held("scores"), asked.held("model")
    write = mteb.export if asked.format == "mteb" else results.export
    count = write(scores, model.meta["start"], asked.run, asked.target)
    return f"{count} result files in {asked.target}", {"files": count}


FORMATS: dict[str, Callable[[Asked], Told]] = {
    **dict.fromkeys(("open_clip", "transformers", "onnx"), _model),
    **dict.fromkeys(("negclip_tsv", "degla_json", "webdataset"), _dataset),
    "croissant": _croissant,
    **dict.fromkeys(("clip_benchmark", "mteb"), _scores),
}
"""Format -> what writes it."""
