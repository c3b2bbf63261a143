"""`degla runs`, `degla log`, `degla promote`: what the runs of a home came to, and which of them is good enough."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from flows import condition
from flows.terminal import Json, out, print_json
from pipeline.artifact import Artifact, now
from pipeline.errors import UserError
from pipeline.home import open_store
from pipeline.run import translate_os_errors
from pipeline.store import Store
from stages.pages import percent, signed
from stages.report import lineage
from stages.road import MAKER, Run
from stages.verdicts import ANSWERS, Facts, answer, p_value, side_by_side

COLUMNS = {"run": "run", "date": "made", "state": "state", "model": "model"}
"""What `--sort` takes beside the names of scores, and the key it is under."""

NOT_MET = 1


def runs(
    sort: Annotated[str, typer.Option(help="run, date, state, model, or a score such as composition")] = "date",
    as_json: Json = False,
) -> None:
    """Every run: when it was made, how it stands, its model, its scores after fine-tuning (change), in per cent.

    It reads manifests alone; `degla status RUN` also looks whether the files are as they were.
    """
    store = open_store()
    found = [_summary(store, name) for name in store.runs()]
    scored = {score: None for one in found for score in one["scores"]}
    if sort in scored:
        found.sort(key=lambda one: -one["scores"][sort]["value"] if sort in one["scores"] else 1.0)
    elif sort in COLUMNS:
        found.sort(key=lambda one: one[COLUMNS[sort]] or "", reverse=sort == "date")
    else:
        raise UserError("runs", f"no column {sort!r}", f"one of {', '.join((*COLUMNS, *scored))}", "--sort")
    if as_json:
        print_json(found)
    elif not found:
        out.print(f"no run yet in {store.home}; start one with: degla run demo")
    else:
        _show(found, sort)


def log(
    name: Annotated[str, typer.Argument(help="run to look at")],
    page: Annotated[bool, typer.Option("--page", help="write the run's lineage page anew and say where it is")] = False,
    as_json: Json = False,
) -> None:
    """What happened to a run: each artifact it held, when, what differed from the one before it; promotions."""
    store = open_store()
    found = _history(store, name)
    if page:
        with translate_os_errors("log"):
            where = lineage.write(Run.open(name, store=store))
        print_json({"page": where}) if as_json else out.print(str(where))
        return
    if as_json:
        print_json(found)
        return
    for one in found:
        if "promoted" in one:
            out.print(f"{_minute(one['at'])}  promoted  {one['promoted']['if']}")
            continue
        how = {True: "made", False: "reused", None: ""}[one["made"]]
        scores = "".join(f"  {score} {_cell(value)}" for score, value in one["scores"].items())
        gone = "" if one["kept"] else "  (deleted since)"
        out.print(f"{_minute(one['at'])}  {one['stage']:9} {how:7} {one['fingerprint']}{scores}{gone}")
        for change in one["changed"]:
            out.print(f"{'':18}{change}", style="dim")


def promote(
    name: Annotated[str, typer.Argument(help="run that is held against the condition")],
    wanted: Annotated[str, typer.Option("--if", help="e.g. 'composition > 70 and zeroshot.change.low > -1'")],
    than: Annotated[str, typer.Option(help="another run, whose scores are called than.composition and so on")] = "",
    as_json: Json = False,
) -> None:
    """Mark a run as good enough when its scores say so. Exit status 0: met; 1: not met; 2: a mistake.

    A score is called as in `degla runs --json`, in per cent; sugarcrepe, valse, aro and zeroshot stand for their means.
    NAME is the score after fine-tuning; NAME.low, NAME.high, NAME.before, NAME.change, NAME.change.low and NAME.p are
    there as well. Comparisons, and, or, not, + and - make the condition.
    """
    store = open_store()
    scores = _scores(store, name)
    values = condition.values(scores.meta["aggregates"])
    if than:
        others = condition.values(_scores(store, than).meta["aggregates"])
        values |= {f"than.{score}": value for score, value in others.items()}
    met, used = condition.holds(wanted, values)
    if met:
        mark = {"if": wanted, "than": than, "values": used, "scores": scores.manifest.fingerprint}
        store.log(name, {"at": now(), "promoted": mark})
    if as_json:
        print_json({"run": name, "if": wanted, "met": met, "values": used})
    else:
        out.print(f"{'met' if met else 'not met'}: {wanted}")
        for score, value in used.items():
            out.print(f"  {score} {value:.4g}")
    raise typer.Exit(0 if met else NOT_MET)


# -- what there is, as JSON data; scores are shares --------------------------------------------------------------------


def _summary(store: Store, name: str) -> dict[str, Any]:
    held = {kind: artifact for kind in MAKER if (artifact := store.glance(name, kind))}
    scores = held.get("scores")
    return {
        "run": name,
        "made": max((artifact.manifest.finished for artifact in held.values()), default=None),
        "state": _state(store, name),
        "model": _model(held["model"].manifest.config) if "model" in held else "",
        "promoted": _promotion(store, name, scores),
        "headline": _headline(scores),
        "scores": _shares(scores),
    }


def _state(store: Store, name: str) -> str:
    """How far the run is current: "current", "stale from train", "until assemble", or what is wrong with its recipe."""
    try:
        states = Run.open(name, store=store).status(manifests=True)
    except UserError:
        return "its recipe is not valid"
    current = ""
    for one in states:
        if one.state == "stale":
            return f"stale from {one.stage}"
        if one.state == "missing":
            return f"until {current}" if current else "nothing made"
        current = one.stage
    return "current"


def _model(config: Mapping[str, Any]) -> str:
    """The model that was fine-tuned, without the folders above it."""
    names = (config["model"], config["pretrained"])
    return " ".join(Path(name).name if Path(name).is_absolute() else name for name in names if name)


def _headline(scores: Artifact | None) -> list[str]:
    """The means that answer the two questions, and those of the paper's benchmarks."""
    aggregates = scores.meta["aggregates"] if scores else {}
    answers = (answer(question, _shares(scores)) for question in ANSWERS)
    return list(dict.fromkeys(name for name in (*answers, *side_by_side(aggregates).values()) if name))


def _shares(scores: Artifact | None) -> dict[str, dict[str, Any]]:
    aggregates: Mapping[str, Facts] = scores.meta["aggregates"] if scores else {}
    return {
        name: {
            **one["after"],
            "before": one["before"]["value"],
            "change": one["difference"]["value"],
            "p": p_value(one["difference"]),
            "says": one["says"],
        }
        for name, one in aggregates.items()
        if one["n"]
    }


def _promotion(store: Store, name: str, scores: Artifact | None) -> dict[str, Any] | None:
    """The last promotion of the scores that the run has now."""
    marks = [{"at": one["at"], **one["promoted"]} for one in store.history(name) if "promoted" in one]
    mine = [one for one in marks if scores and one["scores"] == scores.manifest.fingerprint]
    return mine[-1] if mine else None


def _history(store: Store, name: str) -> list[dict[str, Any]]:
    """What was written down, and before it what the run holds from before anything was."""
    kept = store.history(name)
    known = {one.get("fingerprint") for one in kept}
    held = [artifact.manifest for kind in MAKER if (artifact := store.glance(name, kind))]
    if not kept and not held:
        known_runs = ", ".join(store.runs()) or "no run"
        raise UserError("log", f"run {name!r} has no history", f"one of {known_runs}", "degla runs")
    unknown: list[dict[str, Any]] = [
        {"at": one.finished, "stage": one.stage, "kind": one.kind, "fingerprint": one.fingerprint, "made": None,
         "changed": []}
        for one in held if one.fingerprint not in known
    ]  # fmt: skip
    return [one if "promoted" in one else one | _left(store, one) for one in (*unknown, *kept)]


def _left(store: Store, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Whether an artifact of the history is still in the store, and its scores if it has any."""
    manifest = store.manifest(entry["kind"], entry["fingerprint"])
    scores = Artifact(Path(), manifest) if manifest and manifest.kind == "scores" else None
    shares = _shares(scores)
    return {"kept": manifest is not None, "scores": {score: shares[score] for score in _headline(scores)}}


def _scores(store: Store, name: str) -> Artifact:
    """The run's scores. Raises UserError where there are none, or they are of another model than the run's."""
    scores, model = store.linked(name, "scores"), store.linked(name, "model")
    if scores is None:
        raise UserError("promote", f"run {name!r} has no scores", "a scored run", f"degla run {name}")
    if model is None or scores.manifest.inputs.get("model") != model.digest:
        what = f"the scores of run {name!r} are an earlier model's"
        raise UserError("promote", what, "scores of its model", f"degla run {name} --from evaluate")
    return scores


# -- in the terminal ---------------------------------------------------------------------------------------------------


def _show(found: list[dict[str, Any]], sort: str) -> None:
    columns = list(dict.fromkeys(name for one in found for name in one["headline"]))
    if sort not in (*COLUMNS, *columns):
        columns.append(sort)
    table = Table(*(Column(name, overflow="fold") for name in ("run", "made", "state", "model")))
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        state = Text(one["state"], "green" if one["state"] == "current" else "yellow")
        mark = " *" if one["promoted"] else ""
        cells = (_cell(one["scores"].get(name)) for name in columns)
        table.add_row(one["run"] + mark, _minute(one["made"]), state, one["model"], *cells)
    out.print(table)
    for one in found:
        if one["promoted"]:
            out.print(f"* {one['run']}: promoted {_minute(one['promoted']['at'])}, {one['promoted']['if']}")
    for name in columns:
        rules = sorted({one["scores"][name]["says"] for one in found if name in one["scores"]})
        if len(rules) > 1:
            out.print(f"{name} is not over the same in all of them: {' | '.join(rules)}")


def _cell(score: Mapping[str, Any] | None) -> str:
    return f"{percent(score['value'])} ({signed(score['change'])})" if score else ""


def _minute(moment: str | None) -> str:
    """A time of the history, UTC, to the minute."""
    return (moment or "")[:16].replace("T", " ")
