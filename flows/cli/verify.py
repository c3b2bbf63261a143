"""`degla verify`: can a model tell what follows from a caption and what is grammatical, and at which thresholds."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from flows import progress
from flows.cli.trial import pairs_of
from flows.terminal import Json, out, print_json, with_interval
from pipeline.errors import UserError
from pipeline.home import open_store
from stages import road
from stages.road import Run

SETTINGS = {"follows": "max_follows", "grammatical": "min_grammatical"}


def verify(
    recipe: Annotated[str, typer.Argument(help="recipe in data/recipes, a YAML file, or an existing run")],
    n: Annotated[int, typer.Option("--n", help="pairs of texts of each kind, a random draw", min=20)] = 200,
    root: Annotated[
        Path | None, typer.Option(help="folder with sugarcrepe/ (degla data fetch); default: evaluate.root")
    ] = None,
    overrides: Annotated[list[str], typer.Option("--set", help="section.field=value; may be given several times")] = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Whether the model of `generate.verify` is up to its questions, on SugarCrepe and on your captions.

    A threshold refuses one in twenty of SugarCrepe's true negatives. A model that is up to it refuses many more of what
    is known to be bad: other captions of the same image, and negatives with two words exchanged.
    """
    from stages.generate import calibration  # DuckDB, Arrow

    store, name = open_store(), Path(recipe).stem
    run = Run.open(name, overrides, recipe=recipe if road.is_recipe(recipe) else "", store=store)
    config, place = run.recipe.generate, root or run.recipe.evaluate.root
    if config.verify is None:
        raise UserError("verify", "generate.verify is not set", "own, or a model's folder", "--set generate.verify=own")
    if place is None:
        raise UserError("verify", "no folder of benchmarks", "one with sugarcrepe/", "--root, or evaluate.root")
    pairs = pairs_of(run)
    with store.build("negatives", "verify") as folder:
        try:
            with progress.shown("verify"):
                found = calibration.measured(config, pairs, place, n, folder / "engine.log")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        print_json(found)
        return
    out.print(_shown(found))
    able = [f"--set generate.{SETTINGS[name]}={one['threshold']:.3g}" for name, one in found.items() if _able(one)]
    out.print(" ".join(able) or "This model is not up to it: leave its thresholds off.")


def _able(one: dict[str, Any] | None) -> bool:
    return bool(one and one["is_able"])


def _shown(found: dict[str, dict[str, Any] | None]) -> Table:
    table = Table("question", "threshold", "of the bad refused, %", "is it up to it?")
    for name, one in found.items():
        if one is None:
            table.add_row(name, "", "", "not asked")
        else:
            table.add_row(
                name, f"{one['threshold']:.3g}", with_interval(one["refused"]), "yes" if one["is_able"] else "no"
            )
    return table
