"""`degla plan`: what a run would make and why, and what that takes, before anything is made."""

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from flows.forecast import forecast
from flows.terminal import Json, out, print_json
from stages.road import STAGES, Run

UNKNOWN = "not measured here"


def plan(
    name: Annotated[str, typer.Argument(help="run, or recipe of a new run")] = "demo",
    recipe: Annotated[str, typer.Option(help="against this recipe; default: the run's own")] = "",
    overrides: Annotated[list[str], typer.Option("--set", help="section.field=value; may be given several times")] = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """What a run would reuse or make and why, and time, disk, memory, tokens and money that takes; makes nothing.

    Rates are those of the same work in this home, on a machine with as many cores.
    """
    run = Run.open(name, overrides, recipe=recipe)
    found = forecast(run)
    if as_json:
        print_json(found)
    else:
        _show(found)
    run.check(list(STAGES))


def _show(found: list[dict[str, Any]]) -> None:
    table = Table("stage", "", "work", "time", "disk", "memory")
    for one in found:
        makes = one["action"] == "make"
        work = f"{one['amount']:,} {one['unit']}" if makes and one["amount"] is not None and one["unit"] else ""
        known = makes and one["seconds"] is not None
        cells = [_time(one["seconds"]), _size(one["bytes"]), _size((one["memory_mib"] or 0) * 2**20)] if known else []
        colour = "yellow" if makes else "green"
        table.add_row(one["stage"], Text(one["action"], colour), work, *(cells or [UNKNOWN if makes else "", "", ""]))
    out.print(table)
    for one in found:
        if one["action"] == "make":
            out.print(f"{one['stage']:9} {'; '.join(one['reasons'])}")
        if one.get("missing") and any(one["missing"].values()):
            counts = ", ".join(f"{kind} {count:,}" for kind, count in one["missing"].items())
            out.print(
                f"{'':9} {one['captions']:,} captions in {one['shards']:,} shards; responses to ask for: {counts}"
            )
        if one.get("tokens"):
            money = f", {one['money']:,.2f} at generate.price_per_hour" if one.get("money") is not None else ""
            out.print(f"{'':9} about {one['tokens']:,} tokens{money}")
        if memory := one.get("device_memory"):
            size, fixed = _size(memory["bytes"]), _size(memory["fixed_bytes"])
            out.print(
                f"{'':9} about {size} of memory on each device, estimated by shapes: {fixed} of weights, gradients, "
                f"AdamW and teacher, the rest for {memory['pairs_at_once']:,} pairs at once"
            )
    made = [one for one in found if one["action"] == "make"]
    if not made:
        out.print("nothing to make")
        return
    known = [one for one in made if one["seconds"] is not None]
    rest = ", ".join(one["stage"] for one in made if one["seconds"] is None)
    if known:
        seconds, disk = (sum(one[key] for one in known) for key in ("seconds", "bytes"))
        out.print(f"in all {_time(seconds)}, {_size(disk)}")
    if rest:
        out.print(f"{UNKNOWN}: {rest}")


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def _size(count: float) -> str:
    if not count:
        return "?"
    return f"{count / 2**20:,.1f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"
