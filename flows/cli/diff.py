"""`degla diff`: what differs between two runs, from settings over negatives to scores and the rows behind them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.terminal import Json, out, print_json
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.home import open_store
from pipeline.run import Run, decided, differences
from stages.road import STAGES

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

EXAMPLES = 3

KEY = "(benchmark, subset, row_id, protocol)"
"""What makes rows of two scores tables the same measurement."""

SAME_QUESTION = """* replace (if(protocol like 'choice;%' and texts_key is not null,
    array_to_string(string_split(protocol, ';')[:3], ';') || ';' || texts_key, protocol) as protocol)"""
"""A choice between the same texts is the same measurement, whatever else the file or dataset it comes from holds."""

Name = Annotated[str, typer.Argument(help="run to compare")]


def diff(one: Name, two: Name, as_json: Json = False) -> None:
    """What differs between two runs: settings, negatives, scores on the rows both have (paired), rows that flipped."""
    found = compare(*(Run(open_store(), name, Config(), STAGES) for name in (one, two)))
    if as_json:
        print_json(found)
    else:
        _show(found, one, two)


def compare(one: Run, two: Run) -> dict[str, Any]:
    """What differs between two runs as plain data; a part that one of them lacks is None.

    `settings`: stage -> what decided differently about what it made. `dataset`: rows that only one has, and column ->
    how many values are the same, differ, or are there in one alone, with examples. `scores`: aggregates of the trained
    models over the rows that both were scored on, the first as `before` and the second as `after`, and how many rows
    only one has. `flipped`: by subset, how many rows one model alone gets right, and examples.

    Raises UserError when a run has nothing.
    """
    held = [
        {kind: one.store.glance(run.name, kind) for kind in (s.makes for s in STAGES.values())} for run in (one, two)
    ]
    for run, artifacts in zip((one, two), held, strict=True):
        if not any(artifacts.values()):
            known = ", ".join(one.store.runs()) or "no run"
            raise UserError("diff", f"run {run.name!r} has nothing to compare", f"one of {known}", "degla runs")
    settings = {}
    for name, stage in STAGES.items():
        both = [artifacts[stage.makes] for artifacts in held]
        first, second = (decided(artifact.manifest, stage) if artifact else None for artifact in both)
        if first and second:
            settings[name] = [line for line in differences(first, second) if not line.startswith("inputs.")]
    folders = [run.tables() for run in (one, two)]
    return {
        "settings": {stage: lines for stage, lines in settings.items() if lines},
        "dataset": _dataset(*folders) if all("dataset" in found for found in folders) else None,
        **(_scores(*folders) if all("scores" in found for found in folders) else {"scores": None, "flipped": None}),
    }


def _dataset(one: dict[str, Path], two: dict[str, Path]) -> dict[str, Any]:
    from pipeline import tables

    columns = {}
    with tables.connect({"one": one["dataset"], "two": two["dataset"]}) as sql:
        only = [
            _first(sql, f"select count(*), arg_min(caption, pair_id) from {here} anti join {there} using (pair_id)")  # noqa: S608
            for here, there in (("one", "two"), ("two", "one"))
        ]
        for name in sql.view("one").columns:
            if name.endswith("_tokens") or name == "pair_id" or name not in sql.view("two").columns:
                continue
            a, b, both = f"one.{name}", f"two.{name}", "from one join two using (pair_id)"
            same, changed, first, second = _first(
                sql,
                f"""select count(*) filter ({a} = {b}), count(*) filter ({a} != {b}),
                           count(*) filter ({a} is not null and {b} is null),
                           count(*) filter ({a} is null and {b} is not null) {both}""",
            )
            if changed or first or second:
                examples = sql.sql(
                    f"""select pair_id, one.caption, {a}, {b} {both} where {a} is distinct from {b}
                        order by pair_id limit {EXAMPLES}"""  # noqa: S608
                ).fetchall()
                keys = ("pair_id", "caption", "one", "two")
                columns[name] = {
                    "same": same, "changed": changed, "only_one": first, "only_two": second,
                    "examples": [dict(zip(keys, row, strict=True)) for row in examples],
                }  # fmt: skip
    return {
        "rows": {
            f"only_{side}": {"count": count, "example": example}
            for side, (count, example) in zip(("one", "two"), only, strict=True)
        },
        "columns": columns,
    }


def _scores(one: dict[str, Path], two: dict[str, Path]) -> dict[str, Any]:
    from pipeline import tables
    from stages.evaluate.aggregates import aggregate

    views = {"one_file": one["scores"], "two_file": two["scores"]}
    with tables.connect(views | {"options": two.get("options", two["scores"])}) as sql:
        for side in ("one", "two"):
            sql.execute(f"create view {side} as select {SAME_QUESTION} from {side}_file")  # noqa: S608
            sql.execute(f"create view {side}_after as from {side} where model = 'after'")
        shared = f"{KEY} in (select {KEY} from one_after semi join two_after using {KEY})"  # noqa: S608
        common = f"""select * replace ('before' as model) from one_after where {shared} union all
                     from two_after where {shared} union all
                     from one where model like 'blind:%' and {shared}
                     order by model, benchmark, subset, row_id"""  # noqa: S608
        rows = _as_scores(sql.sql(common).to_arrow_table())
        counts = [_first(sql, f"select count(*) from {side}_after")[0] for side in ("one", "two")]  # noqa: S608
        shared_rows = _first(sql, f"select count(*) from one_after where {shared}")[0]  # noqa: S608
        found: dict[str, Any] = {
            "scores": {
                "rows": shared_rows,
                "only_one": counts[0] - shared_rows,
                "only_two": counts[1] - shared_rows,
                "aggregates": aggregate(rows) if shared_rows else {},
            },
            "flipped": _flipped(sql, "options" in two),
        }
    return found


def _flipped(sql: "duckdb.DuckDBPyConnection", with_texts: bool) -> dict[str, Any]:
    """Rows that one model alone gets right, by subset."""
    joined = f"from one_after one join two_after two using {KEY}"
    counts = sql.sql(
        f"""select benchmark || '.' || subset as name, count(*) filter (one.correct > two.correct) as only_one,
                   count(*) filter (one.correct < two.correct) as only_two, count(*) as rows
            {joined} where not isnan(one.correct) and not isnan(two.correct)
            group by all having only_one + only_two > 0 order by only_one + only_two desc, name"""
    ).fetchall()
    texts = "left join options using (benchmark, subset, row_id)" if with_texts else ""
    shown = "texts, image" if with_texts else "null, null"
    examples = sql.sql(
        f"""select benchmark || '.' || subset, row_id, if(one.correct > two.correct, 'one', 'two'), {shown},
                   one.similarities, two.similarities
            {joined} {texts} where one.correct != two.correct and not isnan(one.correct) and not isnan(two.correct)
            qualify row_number() over (partition by one.correct > two.correct
                order by abs(two.similarities[1] - two.similarities[2] - one.similarities[1] + one.similarities[2])
                         desc, benchmark, subset, row_id) <= {EXAMPLES} order by 3, 1, 2"""
    ).fetchall()
    keys = ("subset", "row_id", "right_in", "texts", "image", "one", "two")
    return {
        "subsets": {name: {"only_one": a, "only_two": b, "of": rows} for name, a, b, rows in counts},
        "examples": [dict(zip(keys, row, strict=True)) for row in examples],
    }


def _first(sql: "duckdb.DuckDBPyConnection", query: str) -> tuple[Any, ...]:
    return tuple(sql.sql(query).fetchall()[0])


def _as_scores(rows: "pa.Table") -> "pa.Table":
    from pipeline.schema import SCORES

    return rows.select(SCORES.names).cast(SCORES)


# -- in the terminal ---------------------------------------------------------------------------------------------------


def _show(found: dict[str, Any], one: str, two: str) -> None:
    head = "bold"
    out.print(f"settings, {one} -> {two}", style=head)
    for stage, lines in found["settings"].items():
        for line in lines:
            out.print(f"  {stage:9} {line.removeprefix('config.')}")
    if not found["settings"]:
        out.print("  the same")
    for part, made in (("dataset", "assemble"), ("scores", "evaluate")):
        if found[part] is None:
            out.print(f"{part}: one of them has none; degla run NAME --until {made}", style=head)
    if found["dataset"]:
        _show_dataset(found["dataset"], one, two)
    if found["scores"]:
        _show_scores(found["scores"], one, two)
        _show_flipped(found["flipped"], one, two)


def _show_dataset(found: dict[str, Any], one: str, two: str) -> None:
    from rich.table import Table

    out.print("dataset", style="bold")
    for side, name in (("one", one), ("two", two)):
        rows = found["rows"][f"only_{side}"]
        if rows["count"]:
            out.print(f"  {rows['count']:,} pairs only in {name}, e.g. {rows['example']}")
    if not found["columns"]:
        out.print("  the pairs that both have are the same, and so are their negatives")
        return
    table = Table("column", "same", "changed", f"only in {one}", f"only in {two}")
    for name, column in found["columns"].items():
        table.add_row(name, *(f"{column[key]:,}" for key in ("same", "changed", "only_one", "only_two")))
    out.print(table)
    for name, column in found["columns"].items():
        for example in column["examples"][:1]:
            out.print(f"  {name}, {example['caption']}")
            out.print(f"    {one}: {_or_none(example['one'])}\n    {two}: {_or_none(example['two'])}")


def _show_scores(found: dict[str, Any], one: str, two: str) -> None:
    from flows import score_tables
    from stages import verdicts

    out.print(f"scores of the trained models on the {found['rows']:,} rows that both have", style="bold")
    for side, name in (("one", one), ("two", two)):
        if found[f"only_{side}"]:
            out.print(f"  {found[f'only_{side}']:,} further rows only in {name} (another dataset or other benchmarks)")
    aggregates = dict(score_tables.told(found["aggregates"]))
    if aggregates:
        out.print(score_tables.of_models(aggregates, {"before": one, "after": two}, random_start=False))
        for line in verdicts.sentences(found["aggregates"], than=one):
            out.print(line)


def _show_flipped(found: dict[str, Any], one: str, two: str) -> None:
    from rich.table import Table

    if not found["subsets"]:
        out.print("no row flipped", style="bold")
        return
    out.print("rows that flipped", style="bold")
    table = Table("subset", f"right in {one} only", f"right in {two} only", "of")
    for name, counts in found["subsets"].items():
        table.add_row(name, f"{counts['only_one']:,}", f"{counts['only_two']:,}", f"{counts['of']:,}")
    out.print(table)
    for example in found["examples"]:
        winner = one if example["right_in"] == "one" else two
        texts = " | ".join(example["texts"] or [])
        out.print(
            f"  right in {winner} only: {example['subset']} {example['row_id']}  {example['image'] or ''}  {texts}"
        )


def _or_none(value: Any) -> str:
    return "none" if value is None else str(value)
