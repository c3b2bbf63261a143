"""The `degla` command: the same pipeline as the deployments, through the same flow, plus what one asks of a run."""

import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.table import Table
from rich.text import Text

from flows import progress
from flows import serve as local
from flows.cli import check as checking
from flows.cli import data as data_cli
from flows.cli import diff as comparison
from flows.cli import evaluate as evaluation
from flows.cli import export as exporting
from flows.cli import gguf as unpacking
from flows.cli import inspect as inspection
from flows.cli import label as labelling
from flows.cli import plan as planning
from flows.cli import runs as experiments
from flows.cli import trial
from flows.cli import verify as verification
from flows.terminal import Json, out, print_json
from pipeline import run as pipeline_run
from pipeline.config import Config, to_yaml
from pipeline.errors import TransientError, UserError, printable
from pipeline.home import open_store
from pipeline.store import Store
from stages import road
from stages.generate.prompts import render_prompt
from stages.road import Run

app = typer.Typer(
    help="Captions to hard negatives to a CLIP that understands composition: run it, inspect it, rerun any stage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_cli.app, name="data")

Name = Annotated[str, typer.Argument(help="run to look at")]
Set = Annotated[list[str], typer.Option("--set", help="section.field=value; may be given several times")]


STOPPED = 130
"""Exit status after Ctrl-C, as shells have it."""


def main() -> None:
    """Entry point: a user's mistake, or a fault that retries did not outlast, is one line on stderr and status 2."""
    code: Any = 0
    try:
        code = app(prog_name="degla", standalone_mode=False)
    except SystemExit as ended:
        code = ended.code
    except (KeyboardInterrupt, typer.Abort):
        code = STOPPED
    except typer.TyperException as error:
        if mistake := error.format_message():  # none where the help was asked for by giving no command
            print(_usage(mistake, getattr(error, "ctx", None)), file=sys.stderr)
        code = 2
    except (UserError, TransientError) as error:
        print(printable(str(error)), file=sys.stderr)
        code = 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader, e.g. head, had enough
    # Out of the handlers, where an exit would hold the error, and with it relations that DuckDB calls leaked.
    if code == STOPPED:  # which Typer makes of Ctrl-C as well
        print("stopped; run the same command again to resume", file=sys.stderr)
    sys.exit(code)


def _usage(mistake: str, context: typer.Context | None) -> UserError:
    """A mistake of the command line, as Typer words it."""
    command = context.command_path if context else "degla"
    what, _, expected = mistake.rstrip(".").replace("Value error, ", "").partition(": Input should be ")
    usage = context.get_usage().removeprefix("Usage: ") if context else "a command"
    return UserError(command, what[0].lower() + what[1:], expected or usage, f"{command} --help")


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="recipe in data/recipes, a YAML file, or an existing run")] = "demo",
    name: Annotated[str, typer.Option("--name", help="name of the run; default: the recipe's")] = "",
    only: Annotated[list[str], typer.Option("--only", help="run just this stage, on what the run has on disk")] = [],  # noqa: B006
    start: Annotated[str, typer.Option("--from", help="first stage to run")] = "",
    until: Annotated[str, typer.Option("--until", help="last stage to run")] = "",
    overrides: Set = [],  # noqa: B006
    at: Annotated[
        str, typer.Option(help="go back to this artifact of the run's history (degla log) and run what comes after it")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="run the stages even when their artifacts are there")] = False,
    rows: Annotated[list[str], typer.Option("--row", help="of an ablation: only these rows")] = [],  # noqa: B006
    jobs: Annotated[int, typer.Option(help="of an ablation: rows trained at once, sharing the cores", min=1)] = 2,
    prefect: Annotated[
        bool,
        typer.Option(help="--no-prefect: no flow run, so no server to wait for, no retries and nothing in its UI"),
    ] = True,
) -> None:
    """Run the pipeline, or some stages of it, or a whole ablation; what is on disk and unchanged is reused."""
    from flows import plan  # processes and settings that only ablations need

    store = open_store()
    if plan.is_plan(recipe):
        if not prefect:
            raise UserError(
                "run", f"{recipe} is an ablation, which is a flow", "a recipe or a run", "drop --no-prefect"
            )
        _compare(store, recipe, rows, jobs, overrides)
        return
    run_name = name or Path(recipe).stem
    stages = _stages(only, start, until)
    # A stage alone keeps the settings its run was made with, unless another recipe is named; the whole pipeline starts
    # from the recipe.
    is_own = not road.is_recipe(recipe) or (len(stages) < len(road.STAGES) and run_name == Path(recipe).stem)
    source = "" if store.recipe(run_name) and (is_own or at) else recipe
    run = Run.open(run_name, overrides, recipe=source, store=store)
    if at:
        if overrides:
            raise UserError("run", "--at brings its own settings, and --set others", "one of them", "drop --set")
        held = run.go_back(at)
        stages = [stage for stage in stages if stage not in held]
    with run.at_work(stages):
        _say(f"{run_name}: looking at what is there")  # hashing large files takes a while
        # What the store has needs no flow run, hence no embedded server (half a minute on a small machine).
        if not force and all(_is_there(run, stage) for stage in stages):
            reused = dict.fromkeys(stages, True)
        elif prefect:
            reused = _walk(run, stages, force)
        else:
            reused = _make(run, stages, force)
        _closing(run, {stage: outcome.reused for stage, outcome in run.outcomes.items()} | reused)


@app.command()
def status(
    name: Annotated[str, typer.Argument(help="run; empty = all, by their manifests alone")] = "", as_json: Json = False
) -> None:
    """What a run has on disk: current, stale (and since which setting, input or file), or missing.

    Of one run every file is looked at, within and outside the store; of all of them only the manifests.
    """
    store = open_store()
    names = [name] if name else store.runs()
    if name and not store.run(name).exists():
        raise UserError("status", f"no run {name!r}", f"one of {', '.join(store.runs()) or 'none'}", "degla runs")
    found = {one: Run.open(one, store=store).status(manifests=not name) for one in names}
    if as_json:
        print_json({run: [inspection.standing(one) for one in states] for run, states in found.items()})
        return
    if not names:
        out.print(f"no run yet in {store.home}; start one with: degla run demo")
    for run_name, states in found.items():
        table = Table("stage", "state", "made", "rows", "artifact", title=run_name, title_justify="left")
        for state in states:
            one = inspection.standing(state)
            table.add_row(
                state.stage,
                Text(state.state, {"current": "green", "stale": "yellow"}.get(state.state, "red")),
                one["made"] or "",
                ", ".join(f"{kind} {count:,}" for kind, count in one["rows"].items()),
                one["fingerprint"] or "",
            )
        out.print(table)
        for state in states:
            if state.state == "stale":
                out.print(f"{state.stage} is stale: {'; '.join(state.reasons)}")


@app.command()
def sql(
    name: Name,
    query: Annotated[str, typer.Argument(help="DuckDB SQL; there is a view for every table")],
    written: Annotated[inspection.Format, typer.Option("--format", help="how the answer is written")] = (
        inspection.Format.box
    ),
    as_json: Annotated[bool, typer.Option("--json", help="as --format json")] = False,
) -> None:
    """Ask SQL of a run's tables: pairs, pairs_rejected, negatives, prompts, dataset, leaks, steps, scores, options."""
    answer = _run(name).sql(query)
    if answer is not None:
        inspection.write(answer, inspection.Format.json if as_json else written)


@app.command()
def show(
    name: Name,
    table: Annotated[str, typer.Argument(help="pairs, negatives, dataset, ...")],
    where: Annotated[str, typer.Option(help="SQL condition, e.g. \"type = 'swap_nouns'\"")] = "",
    limit: Annotated[int, typer.Option(help="rows at most")] = 5,
    as_json: Json = False,
) -> None:
    """Print rows of one table, one column per line."""
    rows = list(inspection.show(_run(name), table, where, limit))
    if as_json:
        print_json([inspection.plain(row) for row in rows])
        return
    for row in rows:
        out.print("\n".join(f"{column:18} {value}" for column, value in row.items()), end="\n\n")


@app.command()
def gc(
    yes: Annotated[bool, typer.Option("--yes/--dry-run", help="delete; without it, only list")] = False,
    replies: Annotated[
        bool, typer.Option("--replies", help="also a language model's cached responses that no run can use")
    ] = False,
    as_json: Json = False,
) -> None:
    """What may be deleted: what no run links to, was made from, or would resume from, and no process is writing."""
    from flows.cli import garbage  # DuckDB, Arrow

    store = open_store()
    found = garbage.find(store, replies=replies)
    if yes:
        garbage.delete(store, found)
    if as_json:
        print_json([{"path": one.path, "why": one.why, "bytes": one.size, "deleted": yes} for one in found])
        return
    for one in found:
        out.print(f"{one.size / 2**20:10,.1f} MiB  {one.path.relative_to(store.home.resolve())}  ({one.why})")
    did = "deleted" if yes else "to gain; delete with: degla gc --yes" if found else "to gain"
    out.print(f"{sum(one.size for one in found) / 2**20:10,.1f} MiB  {did}")


app.command()(exporting.export)
app.command()(planning.plan)
app.command()(experiments.runs)
app.command()(comparison.diff)
app.command()(experiments.log)
app.command()(experiments.promote)
app.command(name="eval")(evaluation.measure)
app.command(name="try")(trial.attempt)
app.command()(checking.check)
app.command()(verification.verify)
app.command()(labelling.label)
app.command()(unpacking.gguf)


@app.command()
def doctor(as_json: Json = False) -> None:
    """What this machine can run: cores, memory, GPU, vLLM, disk, model access."""
    from flows.cli.doctor import findings

    found = []
    for finding in findings(open_store()):
        found.append(finding)
        if not as_json:  # at once: some take a second
            colour = {"ok": "green", "note": "yellow", "missing": "red"}[finding.verdict]
            out.print(Text.assemble((f"{finding.verdict:8}", colour), printable(f"{finding.what:20}{finding.detail}")))
    if as_json:
        print_json([finding._asdict() for finding in found])
    raise typer.Exit(any(finding.verdict == "missing" for finding in found))


@app.command()
def prompt(
    type: Annotated[str, typer.Argument(help="negative type, e.g. swap_nouns")],
    caption: Annotated[str, typer.Argument(help="caption to rewrite")],
    recipe: Annotated[str, typer.Option(help="recipe whose prompts are used")] = "paper",
    as_json: Json = False,
) -> None:
    """Print the exact prompt a caption would get; loads no model."""
    found = render_prompt(road.load(recipe).generate, type, caption)
    if as_json:
        print_json({"type": type, "caption": caption, "prompt": found})
    else:
        print(found)


@app.command()
def recipe(
    name: Annotated[str, typer.Argument(help="recipe or YAML file")] = "demo",
    overrides: Set = [],  # noqa: B006
    schema: Annotated[bool, typer.Option("--schema", help="print the JSON schema of recipes instead")] = False,
    as_json: Json = False,
) -> None:
    """Print a recipe with all defaults resolved, or the JSON schema of recipes."""
    if schema:
        print(road.schema())
    elif as_json:
        print_json(road.load(name, overrides).model_dump(mode="json"))
    else:
        print(to_yaml(road.load(name, overrides)))


@app.command()
def serve(port: Annotated[int, typer.Option(help="port of the server", min=1, max=65535)] = local.PORT) -> None:
    """Start a local Prefect server, a process work pool, a worker and the deployments; Ctrl-C stops them all."""
    local.serve(open_store(), port)


@app.command()
def notify(
    webhook: Annotated[str, typer.Argument(help="address that is told: Slack's, or any that takes JSON with a text")],
    when: Annotated[
        list[str], typer.Option("--when", help="completed, failed, crashed, cancelled; may be given several times")
    ] = ["failed", "crashed"],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Be told when a run under `degla serve` ends, by a webhook; a second call replaces the first."""
    for end in when:
        if end not in local.ENDS:
            raise UserError("notify", f"nothing ends {end!r}", f"one of {', '.join(local.ENDS)}", "--when")
    url = local.notify(open_store(), webhook, tuple(when))
    if as_json:
        print_json({"server": url, "when": when})
    else:
        out.print(f"the server at {url} tells the webhook when a run is {', '.join(when)}")


def _say(line: str) -> None:
    """A line beside the answer, at once."""
    print(printable(line), file=sys.stderr, flush=True)


def _run(name: str) -> pipeline_run.Run:
    """A run to look at, whatever its recipe says."""
    return pipeline_run.Run(open_store(), name, Config(), road.STAGES)


def _walk(run: Run, stages: list[str], force: bool) -> dict[str, bool]:
    """Run the flow; where Prefect's server does not start, or is lost on the way, run what is left without it.

    Gives stage -> whether its artifact was reused.
    """
    import httpx

    _say("starting Prefect")  # half a minute on a small machine
    try:
        local.find_server(run.store)
        from flows.degla import walk

        state = walk(run, stages, force)
    except (httpx.HTTPError, local.NoServerError) as error:
        print(f"run: no Prefect server ({error}); continuing without it", file=sys.stderr)
        return _make(run, stages, force)
    return cast(dict[str, bool], state.result())


def _make(run: Run, stages: list[str], force: bool) -> dict[str, bool]:
    """Make what is left of the stages in this process, without a flow; stage -> whether its artifact was reused."""
    for name in stages:
        if name not in run.outcomes:
            run.make(name, partial(progress.shown, name), force=force)
    return {name: run.outcomes[name].reused for name in stages}


def _is_there(run: Run, stage: str) -> bool:
    """Whether the store has what a stage would make; then the run holds it."""
    with suppress(TransientError):  # the stage will see, and is tried again
        return run.reuse(stage) is not None
    return False


def _compare(store: Store, name: str, rows: list[str], jobs: int, overrides: list[str]) -> None:
    """Run a plan's rows with its seeds and print the comparison."""
    from flows import plan, search

    chosen = plan.load(name, rows)
    plan.cells(chosen, Path(name).stem, overrides)
    search.trials(chosen, Path(name).stem, overrides)
    import httpx

    _say("starting Prefect")
    local.find_server(store)
    from prefect import tags

    from flows.ablation import ablation

    try:
        with tags("degla"):
            state: Any = ablation(name, rows, [], overrides, jobs, return_state=True)
    except httpx.HTTPError as error:
        raise UserError(
            "ablation", f"lost Prefect's server ({error})", "it until the end", "the same command resumes from here"
        ) from None
    if not state.is_completed():
        state.result()
    folder = store.run(Path(name).stem) / "comparison"
    out.print((folder / "comparison.md").read_text(encoding="utf-8"))
    out.print(f"comparison: {folder}")


def _stages(only: list[str], start: str, until: str) -> list[str]:
    names = road.chosen(only)
    for bound in (start, until):
        if bound:
            road.chosen([bound])
    first = list(road.STAGES).index(start) if start else 0
    last = list(road.STAGES).index(until) if until else len(road.STAGES)
    stages = [name for position, name in enumerate(road.STAGES) if name in names and first <= position <= last]
    if not stages:
        raise UserError("run", "no stage is left", "--from before --until", "name them in the order of the pipeline")
    return stages


def _closing(run: Run, reused: dict[str, bool]) -> None:
    """What became of each stage, the scores before and after, and where the report is."""
    for name, is_reused in reused.items():
        artifact = run[run.stages[name].makes]
        rows = ", ".join(f"{count:,} rows of {kind}" for kind, count in artifact.manifest.rows.items())
        where = run.folder / artifact.manifest.kind
        out.print(
            f"{name:9} {'reused' if is_reused else 'made':7} {where}" + (f"  ({rows})" if rows else ""), style="dim"
        )
    current = {one.stage for one in run.status() if one.state == "current"}
    scores, report = run.get("scores"), run.get("report")
    if scores is not None and "evaluate" not in current:
        out.print(f"the scores are an earlier model's; next: degla run {run.name} --from evaluate")
    elif scores is not None:
        from flows import score_tables  # numpy and all readers of benchmarks

        out.print(score_tables.of_run(scores.meta))
        for line in score_tables.says(scores.meta):
            out.print(line)
    if report is not None and "report" in current:
        out.print(f"report: {run.folder / 'report' / 'report.html'}")
