"""The long chaos suite (`make chaos`): every fault at every stage, and faults of what a run leans on.

Writes the table of docs/reliability.md, between its two marks, from what was seen. What was seen is kept in a folder,
so the suite, too, goes on where it was stopped.

    python -m tests.chaos FOLDER [--repeat N] [--seed S] [--fault NAME ...] [--stage NAME ...]
"""

import argparse
import json
import os
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from stages import road
from tests.chaos import faults, served
from tests.chaos.faults import FAULTS, Outcome
from tests.chaos.lab import STAGES, WITHOUT_PREFECT, Lab
from tests.paths import ROOT

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- chaos: written by make chaos -->\n", "<!-- end of chaos -->\n"
CLI = (str(Path(sys.executable).with_name("degla")), "run")
RECIPE = """\
description: a small built-in world, in shards small enough to be killed between them
ingest:
  source: scenes
  shard: 16
  world: {pictures: 60, captions: 2, concepts: narrow, benchmark_rows: 24}
generate: {backend: rules, shard_size: 16, max_reject_rate: 1.0}
assemble: {tokenizer: data/clip_tiny, shard: 16}
train: {model: data/clip_tiny, pretrained: null, epochs: 3, batch: 8, warmup: 1, workers: 0, checkpoint_steps: 2}
evaluate: {benchmarks: [sugarcrepe, heldout]}
"""


class Try(NamedTuple):
    """One fault at one stage, for the so-many-th time."""

    fault: str
    stage: str
    turn: int


def main() -> int:
    """Try what was not tried yet; 1 when anything was ever not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("folder", type=Path, help="where homes are made and what was seen is kept")
    parser.add_argument("--repeat", type=int, default=3, help="of the faults that strike at a random moment")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of the places harmed")
    parser.add_argument("--fault", action="append", choices=[*FAULTS, *served.FAULTS], default=[])
    parser.add_argument("--stage", action="append", choices=STAGES, default=[])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin nothing new after this long")
    given = parser.parse_args()
    begun, log = time.monotonic(), given.folder / "seen.jsonl"
    lab = prepared(given.folder)
    seen = read(log)
    for one in tries(given.fault or [*FAULTS, *served.FAULTS], given.stage or STAGES, given.repeat):
        if one in seen or time.monotonic() - begun > given.seconds:
            continue
        start = time.monotonic()
        outcome = attempt(lab, one, random.Random(f"{given.seed} {one}"))
        seen[one] = outcome
        facts = {**one._asdict(), **outcome._asdict(), "seconds": round(time.monotonic() - start, 1)}
        with log.open("a", encoding="utf-8") as sink:
            sink.write(json.dumps(facts) + "\n")
        print(f"{one.fault} / {one.stage}: {verdict(outcome)} {'; '.join(outcome.faults) or outcome.said}", flush=True)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + table(seen, given.seed) + END + rest.partition(END)[2], encoding="utf-8")
    return int(any(outcome.faults for outcome in seen.values()))


def prepared(folder: Path) -> Lab:
    """The lab in that folder, with its undisturbed home made by `degla run` unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    lab, times = Lab(folder, folder / "small.yaml", CLI), folder / "seconds.json"
    if times.exists():
        lab.seconds |= json.loads(times.read_text())
    else:
        lab.recipe.write_text(RECIPE, encoding="utf-8")
        lab.prepare()
        times.write_text(json.dumps(lab.seconds))
    return lab


def tries(chosen: list[str], stages: list[str], repeat: int) -> Iterator[Try]:
    """What there is to try, the first turn of everything before the second of anything."""
    for turn in range(repeat):
        for fault in chosen:
            if fault in served.FAULTS:
                stage = served.FAULTS[fault][0]
                yield from [Try(fault, stage, turn)] if turn == 0 and stage in stages else []
            elif fault not in faults.NEED_MOUNTS or faults.can_mount():
                able = [name for name in stages if road.STAGES[name].needs or fault not in faults.OF_INPUTS]
                yield from (Try(fault, stage, turn) for stage in able if turn == 0 or fault in faults.AT_RANDOM)


def attempt(lab: Lab, one: Try, draw: random.Random) -> Outcome:
    """Do it: signals through `degla run`, disks and files on the stages themselves, which saves Prefect's start."""
    if one.fault in served.FAULTS:
        return served.FAULTS[one.fault][1](lab)
    command = lab.command if one.fault in faults.OF_PROCESSES else WITHOUT_PREFECT
    return FAULTS[one.fault](Lab(lab.folder, lab.recipe, command, lab.seconds), one.stage, draw)


def read(log: Path) -> dict[Try, Outcome]:
    """What was seen so far."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    return {Try(x["fault"], x["stage"], x["turn"]): Outcome(x["status"], x["said"], x["faults"]) for x in lines}


def verdict(outcome: Outcome) -> str:
    """One outcome in a word or two."""
    if outcome.faults:
        return "**wrong**"
    if outcome.status == 0:
        return "to the end"
    return "one line, went on" if outcome.said else "stopped, went on"


def table(seen: dict[Try, Outcome], seed: int) -> str:
    """Faults by stages, each with what was seen."""
    cells: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for one, outcome in seen.items():
        cells[one.fault, one.stage][verdict(outcome)] += 1
    wrong = sum(bool(outcome.faults) for outcome in seen.values())
    when = datetime.now(UTC).date().isoformat()
    lines = [
        f"{when}, `make chaos` (seed {seed}), {os.cpu_count()} cores: {len(seen)} tries, {wrong} not as they must be; "
        "an empty cell was not tried.",
        "",
        f"| fault | {' | '.join(STAGES)} |",
        "|---" * (len(STAGES) + 1) + "|",
    ]
    for fault in [*FAULTS, *served.FAULTS]:
        told = [", ".join(f"{what} {n}" for what, n in sorted(cells[fault, stage].items())) for stage in STAGES]
        if any(told):
            lines.append(f"| {fault} | {' | '.join(told)} |")
    failed = [f"- {one.fault}, {one.stage}: {'; '.join(o.faults)}" for one, o in seen.items() if o.faults]
    return "\n".join([*lines, *(["", "Not as they must be:", "", *failed] if failed else []), ""])


if __name__ == "__main__":
    sys.exit(main())
