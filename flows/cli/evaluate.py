"""`degla eval`: measure any CLIP model on a folder of benchmarks, without a run; a table, the rows, a page to share."""

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from flows import progress
from flows.terminal import Json, out, print_json
from pipeline import clip, tables
from pipeline.artifact import digest, file_sha256
from pipeline.clip import Clip
from pipeline.errors import UserError
from stages.evaluate import Config

if TYPE_CHECKING:
    from stages.evaluate.embeddings import Embeddings

ROOT = "DEGLA_BENCHMARKS"


class Activation(StrEnum):
    """What `--activation` takes."""

    gelu = "gelu"
    quickgelu = "quickgelu"
    both = "both"


class Asked(NamedTuple):
    """The models to measure, by the name the scores table gives them: one `model`, or `before` and `after`.

    Attributes:
        loads: what loads each, or its embeddings.
        labels: what a reader sees.
        digests: identity of each, of its weights and what it computes.
        random_start: whether `before` has random weights.
    """

    loads: "dict[str, Callable[[], Clip] | Embeddings]"
    labels: dict[str, str]
    digests: dict[str, str]
    random_start: bool = False


def measure(
    model: Annotated[
        str,
        typer.Option(
            help="open_clip architecture, hf-hub:owner/name, folder (open_clip's, CLIPModel), or embeddings.parquet"
        ),
    ],
    pretrained: Annotated[str, typer.Option(help="open_clip tag or weights file; without it random weights")] = "",
    root: Annotated[Path | None, typer.Option(help="folder of benchmarks", envvar=ROOT, show_envvar=True)] = None,
    benchmarks: Annotated[str, typer.Option(help="comma-separated; default: all that root holds")] = "",
    against: Annotated[
        str, typer.Option(help="MODEL[:PRETRAINED], or embeddings.parquet, to compare with, row by row")
    ] = "",
    activation: Annotated[
        Activation | None, typer.Option(help="of a weights file that does not say; both = what a mismatch does")
    ] = None,
    target: Annotated[
        Path | None, typer.Option("--out", help="folder for a page: eval.html, eval.md, eval.json")
    ] = None,
    rows: Annotated[Path | None, typer.Option(help="also write every row with its similarities, Parquet")] = None,
    official: Annotated[bool, typer.Option(help="hold files against known counts and digests")] = True,
    blind: Annotated[bool, typer.Option(help="also score text-only baselines, which see no image")] = True,
    likelihood: Annotated[str, typer.Option(help="language model (by vLLM) as a further text-only baseline")] = "",
    attack: Annotated[int, typer.Option(help="rows per set also scored under attack on the image", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="of random weights, permutations and attack", min=0)] = 0,
    device: Annotated[str, typer.Option(help="torch device; auto = cuda when there is one")] = "auto",
    batch: Annotated[int | None, typer.Option(help="images, or texts, per forward pass", min=1)] = None,
    workers: Annotated[int, typer.Option(help="threads that decode images", min=0)] = 0,
    work: Annotated[Path | None, typer.Option(help="folder that keeps embeddings, to resume and repeat")] = None,
    as_json: Json = False,
) -> None:
    """Score any CLIP model on the benchmarks of a folder; needs no run."""
    from flows import score_tables
    from pipeline.schema import SCORES
    from stages import verdicts
    from stages.evaluate.measure import measure as score
    from stages.report import scorecard

    config = Config(
        root=_root(root),
        benchmarks=tuple(name.strip() for name in benchmarks.split(",") if name.strip()) or None,
        official=official,
        blind=blind,
        likelihood=likelihood or None,
        robustness={"rows": attack},
        seed=seed,
        device=device,
        batch=batch,
        workers=workers,
    )
    asked = _asked(model, pretrained, against, activation, seed, _root(root))
    if attack and any(not callable(load) for load in asked.loads.values()):
        raise UserError("eval", f"--attack {attack} is given with embeddings", "a model", "leave --attack out")
    folders = {name: work / identity for name, identity in asked.digests.items()} if work else None
    with progress.shown("eval") as bar:
        found = score(asked.loads, config, folders, bar)
    if rows is not None:
        tables.write(rows, found.scores, SCORES)
    if target is not None:
        scorecard.write(
            target,
            asked.labels,
            aggregates=found.aggregates,
            descriptions=found.descriptions,
            protocols=found.protocols,
            random_start=asked.random_start,
            official=official,
            settings=config.identity(),
        )
    than = asked.labels.get("before", "")
    says = verdicts.sentences(found.aggregates, random_start=asked.random_start, than=than) if than else []
    if as_json:
        facts = {"models": asked.labels, "says": says, "aggregates": found.aggregates, "protocols": found.protocols}
        print_json(facts | {"descriptions": found.descriptions})
        return
    out.print(score_tables.of_models(found.aggregates, asked.labels, random_start=asked.random_start))
    for line in (*says, *verdicts.cut(found.descriptions, asked.labels)):
        out.print(line)
    if target is not None:
        out.print(f"page: {target / 'eval.html'}")


def _root(root: Path | None) -> Path:
    if root is None:
        raise UserError("eval", "no folder of benchmarks is given", "one, see degla data", f"--root, or ${ROOT}")
    if not root.is_dir():
        raise UserError("eval", f"there is no folder {root}", "a folder of benchmarks", f"--root, or ${ROOT}")
    return root


def _asked(model: str, pretrained: str, against: str, activation: Activation | None, seed: int, root: Path) -> Asked:
    from stages.evaluate.embeddings import ENDING, Embeddings

    def load(name: str, weights: str | None, computing: str | None = None) -> "Callable[[], Clip] | Embeddings":
        if name.endswith(ENDING):
            return Embeddings(Path(name), root)
        return partial(clip.load, name, weights, seed=seed, activation=computing)

    def identity(name: str, weights: str | None, computing: str | None = None) -> str:
        if name.endswith(ENDING):
            return file_sha256(Path(name))
        return digest([clip.model_digest(name, weights), seed, computing])

    if model.endswith(ENDING) and (pretrained or activation):
        given = "--activation" if activation else "--pretrained"
        raise UserError("eval", f"{given} is given with embeddings", "--model alone", f"leave {given} out")

    mine = (model, pretrained or None)
    label = ":".join(filter(None, mine))
    if activation == Activation.both:
        if against:
            raise UserError("eval", "--activation both and --against are both given", "one of them", "leave one out")
        trained = clip.trained_with(*mine)
        first = trained or "quick_gelu"
        second = "gelu" if first == "quick_gelu" else "quick_gelu"
        start = partial(clip.load, *mine, seed=seed, activation=first)
        return Asked(
            {"before": start, "after": lambda: clip.with_activation(start(), second)},
            {"before": first + (", as trained" if trained else ""), "after": second},
            {"before": identity(*mine, first), "after": identity(*mine, second)},
        )
    computing = {Activation.quickgelu: "quick_gelu", Activation.gelu: "gelu"}.get(activation) if activation else None
    if not against:
        return Asked({"model": load(*mine, computing)}, {"model": label}, {"model": identity(*mine, computing)})
    name, _, weights = (against, "", "") if against.startswith("hf-hub:") else against.partition(":")
    theirs = (name, weights or None)
    return Asked(
        {"before": load(*theirs), "after": load(*mine, computing)},
        {"before": against, "after": label},
        {"before": identity(*theirs), "after": identity(*mine, computing)},
        not name.endswith(ENDING) and clip.is_random(*theirs),
    )
