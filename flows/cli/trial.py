"""`degla try`: a few captions through the real generator and checks, before anything is paid for."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from flows import progress
from flows.terminal import Json, out, print_json
from pipeline import tables
from pipeline.artifact import Artifact, digest
from pipeline.errors import UserError, printable
from pipeline.home import open_store
from stages import road
from stages.pages import duration
from stages.road import Run


def attempt(
    recipe: Annotated[str, typer.Argument(help="recipe in data/recipes, a YAML file, or an existing run")],
    n: Annotated[int, typer.Option("--n", help="captions, a random draw, the same each time", min=1)] = 20,
    overrides: Annotated[list[str], typer.Option("--set", help="section.field=value; may be given several times")] = [],  # noqa: B006
    target: Annotated[
        Path | None, typer.Option("--out", help="page to write; default: RECIPE-try.html in $DEGLA_HOME")
    ] = None,
    as_json: Json = False,
) -> None:
    """A few captions through the real generator and checks: what is accepted and rejected, and what all would take.

    `ingest` is made where it is not yet; it and all responses are kept, and `degla run` uses them.
    """
    from stages.generate import trial  # DuckDB, Arrow

    store, name = open_store(), Path(recipe).stem
    run = Run.open(name, overrides, recipe=recipe if road.is_recipe(recipe) else "", store=store)
    config = run.recipe.generate
    if not config.kinds:
        raise UserError("try", "generate.types is empty", "a type to try", "set generate.types")
    pairs = pairs_of(run)
    with store.build("negatives", "try") as folder:
        try:
            with progress.shown("try") as bar:
                found = trial.attempt(config, pairs, n, folder, bar)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    path = target or store.home / f"{name}-try.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    tables.write_text(path, trial.page(found, name, config))
    if as_json:
        print_json({**found, "page": path})
        return
    out.print(_candidates(found))
    out.print(_costs(found, config.price_per_hour))
    out.print(f"page: {path}")


def pairs_of(run: Run) -> Artifact:
    """The pairs of the recipe, from the store or made for it; no run's own links and settings change."""
    if found := run.store.find("pairs", digest(run.identity("ingest", {}))):
        return found
    own = Run(run.store, f"{run.name}-try", run.recipe, run.stages)
    try:
        return own.make("ingest", lambda: progress.shown("ingest")).artifact
    finally:
        shutil.rmtree(own.folder, ignore_errors=True)


def _candidates(found: dict[str, Any]) -> Table:
    table = Table(
        "type",
        "accepted",
        "rejected",
    )
    for row in found["rows"]:
        table.add_section()
        table.add_row("", Text(printable(row["caption"]), "bold"), "")
        for kind, one in row["types"].items():
            nothing = Text("not applicable", "dim") if one["not_applicable"] else Text("")
            accepted = nothing if one["accepted"] is None else Text(printable(one["accepted"]), "green")
            rejected = Text("\n").join(
                Text.assemble(printable(f"{bad['text'] or ''} "), (f"({bad['reason']})".replace("_", " "), "red"))
                for bad in one["rejected"]
            )
            table.add_row(kind, accepted, rejected)
    return table


def _costs(found: dict[str, Any], price: float | None) -> Table:
    table = Table("captions")
    for column in ("responses", "prompt tokens", "response tokens", "time", *(["money"] if price is not None else [])):
        table.add_column(column, justify="right")
    for what in ("tried", "all"):
        one = found[what]
        counts = [f"{one[key]:,}" for key in ("replies", "prompt_tokens", "reply_tokens")]
        time = "-" if one["seconds"] is None else duration(one["seconds"])
        money = [] if price is None else ["-" if one["money"] is None else f"{one['money']:,.2f}"]
        table.add_row(f"{what}: {one['captions']:,}", *counts, time, *money)
    if found["all"]["seconds"] is not None:
        table.caption = "at the rate of these requests; more at once are faster; loading the model is not in it"
    return table
