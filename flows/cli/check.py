"""`degla check`: the checks on anybody's negatives, without a run; with labels, how far these agree."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from flows import progress
from flows.terminal import Json, out, print_json, with_interval
from stages.pages import percent

REASONS = 3
"""Reasons shown per type, the commonest."""


def check(
    file: Annotated[Path, typer.Argument(help="TSV, CSV or Parquet: type, caption, candidate, perhaps siblings")],
    label: Annotated[
        str, typer.Option(help="column of 1, 0 and u; default: usable, or grammatical, false and of_type")
    ] = "",
    target: Annotated[
        Path | None, typer.Option("--out", help="also write the rows with status, reason, text: .tsv, .csv, .parquet")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the checks on negatives from anywhere: how many pass and why not; with labels, precision and recall."""
    from stages import labels
    from stages.generate import check_file, sheets  # DuckDB, Arrow, scipy

    if target is not None:
        sheets.check_name(target, "check")
    table = check_file.read(file)
    usable = labels.usable(table, "check", label)
    with progress.shown("check") as bar:
        checked = check_file.check(table, bar)
    if target is not None:
        sheets.write(target, checked, "check")
    found = check_file.summary(checked, usable)
    if as_json:
        print_json(found)
        return
    entries = {**found["types"], "all": found["all"]}
    out.print(_acceptance(entries))
    if usable is not None:
        out.print(_agreement(entries))
    if target is not None:
        out.print(f"{checked.num_rows:,} rows in {target}")


def _acceptance(entries: dict[str, dict[str, Any]]) -> Table:
    table = Table("type")
    for name in ("accepted", "rejected", "not applicable", "accepted, %"):
        table.add_column(name, justify="right")
    table.add_column("most rejected for")
    for kind, one in entries.items():
        counts = (f"{one['candidates'].get(status, 0):,}" for status in ("accepted", "rejected", "not_applicable"))
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in list(one["reasons"].items())[:REASONS])
        table.add_row(kind, *counts, percent(one["acceptance"]), reasons)
    return table


def _agreement(entries: dict[str, dict[str, Any]]) -> Table:
    """Shares in per cent with their 95 % intervals."""
    shares = ("precision", "recall", "unusable_accepted")
    table = Table("labels of", title="per cent (95 % interval)", title_justify="left")
    for name in ("usable", "unusable", "undecided", *shares):
        table.add_column(name.replace("_", " "), justify="right")
    for kind, one in entries.items():
        found = one["labels"]
        counts = (f"{found[name]:,}" for name in ("usable", "unusable", "undecided"))
        table.add_row(kind, *counts, *(with_interval(found[name]) for name in shares))
    return table
