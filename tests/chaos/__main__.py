"""The long chaos suite (`make chaos`): every fault at every stage through `degla run`, then faults of a served Prefect.

Writes the table of docs/reliability.md, between its two marks, from what was seen.

    python -m tests.chaos [--repeat N] [--seed S] [--fault NAME ...] [--stage NAME ...]
"""

import argparse
import json
import os
import random
import shutil
import sys
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp

from tests.chaos import faults, served
from tests.chaos.faults import FAULTS, Outcome
from tests.chaos.lab import ROOT, STAGES, Lab

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- chaos: written by make chaos -->\n", "<!-- end of chaos -->\n"
RECIPE = """\
description: a small built-in world, in shards small enough to be killed between them
ingest:
  source: scenes
  shard: 16
  world: {pictures: 60, captions: 2, concepts: narrow, benchmark_rows: 24}
generate: {backend: rules, shard_size: 16, max_reject_rate: 1.0}
assemble: {tokenizer: data/clip_tiny, shard: 16}
train: {model: data/clip_tiny, pretrained: null, epochs: 3, batch: 8, warmup: 1, workers: 0, checkpoint_steps: 2}
evaluate: {resamples: 100, benchmarks: [sugarcrepe, heldout]}
"""


def main() -> int:
    """Try everything; 1 when anything was not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--repeat", type=int, default=3, help="of the faults that strike at a random moment")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of the places harmed")
    parser.add_argument("--fault", action="append", choices=[*FAULTS, *served.FAULTS], default=[])
    parser.add_argument("--stage", action="append", choices=STAGES, default=[])
    given = parser.parse_args()
    chosen = given.fault or [*FAULTS, *served.FAULTS]
    folder = Path(mkdtemp(prefix="degla-chaos-"))
    seen: dict[str, dict[str, list[Outcome]]] = defaultdict(lambda: defaultdict(list))
    begun = time.monotonic()
    try:
        (folder / "small.yaml").write_text(RECIPE, encoding="utf-8")
        lab = Lab(folder, folder / "small.yaml", (str(Path(sys.executable).with_name("degla")), "run"))
        lab.prepare()
        print(
            json.dumps({"seconds per stage": {name: round(took, 2) for name, took in lab.seconds.items()}}), flush=True
        )
        for name in chosen:
            if name in served.FAULTS:
                note(seen, name, "train", served.FAULTS[name](lab))
                continue
            if name in faults.NEED_MOUNTS and not faults.can_mount():
                print(f"skipped: {name} (needs root, to mount a file system)", flush=True)
                continue
            for stage in given.stage or STAGES:
                for turn in range(given.repeat if name in faults.AT_RANDOM else 1):
                    draw = random.Random(f"{given.seed} {name} {stage} {turn}")
                    note(seen, name, stage, FAULTS[name](lab, stage, draw))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    command = "make chaos" if len(sys.argv) == 1 else f"python -m tests.chaos {' '.join(sys.argv[1:])}"
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    text = before + BEGIN + table(seen, command, time.monotonic() - begun) + END + after
    if not given.fault and not given.stage:
        PAGE.write_text(text, encoding="utf-8")
    else:
        print(table(seen, command, time.monotonic() - begun))
    return int(any(one.faults for row in seen.values() for cell in row.values() for one in cell))


def note(seen: dict[str, dict[str, list[Outcome]]], name: str, stage: str, outcome: Outcome) -> None:
    """Keep an outcome, and say it."""
    seen[name][stage].append(outcome)
    verdict = "; ".join(outcome.faults) if outcome.faults else "well"
    print(f"{name} / {stage}: status {outcome.status}; {outcome.said[:100]}; {verdict}", flush=True)


def table(seen: dict[str, dict[str, list[Outcome]]], command: str, seconds: float) -> str:
    """Faults by stages, each with what was seen."""
    tries = sum(len(cell) for row in seen.values() for cell in row.values())
    bad = sum(bool(one.faults) for row in seen.values() for cell in row.values() for one in cell)
    when = datetime.now(UTC).date().isoformat()
    lines = [
        f"{when}, `{command}`, {os.cpu_count()} cores, {seconds / 60:.0f} minutes: {tries} tries, {bad} not as they "
        "must be.",
        "",
        f"| fault | {' | '.join(STAGES)} |",
        "|---" * (len(STAGES) + 1) + "|",
    ]
    lines += [f"| {name} | {' | '.join(cell(row[stage]) for stage in STAGES)} |" for name, row in seen.items()]
    failed = [
        f"- {name}, {stage}: {'; '.join(one.faults)}"
        for name, row in seen.items()
        for stage in STAGES
        for one in row[stage]
        if one.faults
    ]
    return "\n".join([*lines, *(["", "Not as they must be:", "", *failed] if failed else []), ""])


def cell(outcomes: list[Outcome]) -> str:
    """What was seen, in a few words."""
    if not outcomes:
        return ""
    kinds: dict[str, int] = defaultdict(int)
    for one in outcomes:
        if one.faults:
            kinds["**wrong**"] += 1
        elif one.status == 0:
            kinds["to the end"] += 1
        else:
            kinds["one line, continued" if one.said else "stopped, continued"] += 1
    return ", ".join(f"{kind} {count}/{len(outcomes)}" for kind, count in sorted(kinds.items()))


if __name__ == "__main__":
    sys.exit(main())
