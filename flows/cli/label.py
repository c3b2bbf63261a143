"""`degla label`: a sheet of a run's negatives for a person to read, and its answers back, kept with the run."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from flows.terminal import Json, out, print_json, with_interval
from pipeline.artifact import Artifact
from pipeline.errors import UserError
from pipeline.home import open_store

SEED = 0


def label(
    name: Annotated[str, typer.Argument(help="run whose negatives are read")],
    sheet: Annotated[Path | None, typer.Argument(help="sheet that was filled in; without it one is written")] = None,
    n: Annotated[int, typer.Option("--n", help="rows per type", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="another one draws other rows")] = SEED,
    target: Annotated[Path | None, typer.Option("--out", help="sheet to write; default: RUN-labels.tsv")] = None,
    as_json: Json = False,
) -> None:
    """Write a sheet of accepted negatives to label, or read one back: then card and report state the precision."""
    from stages import labels
    from stages.generate import label_sheet, sheets  # DuckDB, Arrow

    store = open_store()
    negatives, pairs = store.linked(name, "negatives"), store.linked(name, "pairs")
    if negatives is None or pairs is None or negatives.manifest.inputs.get("pairs") != pairs.digest:
        what = f"run {name!r} has no negatives of its pairs"
        raise UserError("label", what, "a run with negatives", f"degla run {name} --until generate")
    if sheet is None:
        path = target or Path(f"{name}-labels.tsv")
        sheets.check_name(path, "label")
        if path.exists():
            raise UserError("label", f"there is a {path} already", "a new file: labels are work", "--out")
        drawn = label_sheet.draw(negatives, pairs, n, seed)
        sheets.write(path, drawn, "label")
        if as_json:
            print_json({"sheet": path, "rows": drawn.num_rows, "questions": list(labels.QUESTIONS)})
            return
        out.print(f"{drawn.num_rows:,} rows in {path}: write 1, 0 or u (undecided) under {', '.join(labels.QUESTIONS)}")
        out.print(f"then: degla label {name} {path}")
        return
    answered = sheets.read(sheet, "label", [*label_sheet.KEY, *labels.QUESTIONS])
    count = label_sheet.keep(answered, negatives, pairs)
    if as_json:
        print_json({"kept": count, "file": labels.file_of(negatives.path), "types": labels.of(negatives)})
        return
    out.print(_precision(negatives))
    out.print(
        f"{count:,} rows kept in {labels.file_of(negatives.path)}; card: {store.run(name) / 'negatives/card.html'}"
    )
    if store.linked(name, "report") is not None:
        out.print(f"into the report: degla run {name} --only report")


def _precision(negatives: Artifact) -> Table:
    from stages import labels

    table = Table("type")
    for column in ("labelled", "undecided", "precision, %", "usable per 100 captions", "tokens each", "seconds each"):
        table.add_column(column, justify="right")
    for kind, one in labels.of(negatives).items():
        labelled = one["precision"]["n"] + one["undecided"]
        table.add_row(
            kind, str(labelled), str(one["undecided"]), with_interval(one["precision"]), with_interval(one["yield"]),
            _number(one["tokens"]), _number(one["seconds"]),
        )  # fmt: skip
    return table


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:,.1f}"
