"""How many small changes of the code that makes the figures its tests notice: mutation tests with Cosmic Ray.

    python scripts/mutants.py [--most 40] [--seed 0] [module ...]        needs the extra mutants

Of each module a random part of all mutants is tried, each against the test file of that module alone, in a copy of the
tracked files. Prints what survived, as diffs, and the share that was killed; the exit status is 1 where it is less than
nine in ten. A survivor is either a missing test, or a change that changes nothing: read it.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TESTS = {
    "stages/evaluate/aggregates.py": "tests/stages/evaluate/test_aggregates.py",
    "stages/evaluate/scoring.py": "tests/stages/evaluate/test_scoring.py",
    "stages/evaluate/statistics.py": "tests/stages/evaluate/test_statistics.py",
    "stages/generate/case.py": "tests/stages/generate/test_checks.py",
    "stages/generate/checks.py": "tests/stages/generate/test_checks.py",
    "stages/generate/replace_checks.py": "tests/stages/generate/test_checks.py",
    "stages/generate/swap_checks.py": "tests/stages/generate/test_checks.py",
    "stages/train/losses.py": "tests/stages/train/test_losses.py",
    "stages/train/objective.py": "tests/stages/train/test_objective.py",
}
SLOWEST = 300
"""Seconds a test file may take; a mutant that takes longer counts as killed."""

CONFIG = """[cosmic-ray]
module-path = "{module}"
timeout = {slowest}
excluded-modules = []
test-command = "{python} -m pytest -q -x -p no:cacheprovider -p no:warnings {tests}"
distributor.name = "local"
"""


EQUIVALENT = ("BitOr", "_Is", "_IsNot")
"""Operators whose mutants change nothing: `|` stands in types and unions of dicts here, `is` is as good as `==`."""

GUARDS = ("strict=", "frozen=")
"""A line's mutants of True and False that change nothing while the code around it is right."""


def sample(session: Path, module: Path, most: int, seed: int) -> None:
    """Skip all but some of a session's mutants, and those that change nothing."""
    from cosmic_ray.work_db import WorkDB, use_db
    from cosmic_ray.work_item import WorkerOutcome, WorkResult

    lines = module.read_text(encoding="utf-8").splitlines()
    with use_db(str(session), WorkDB.Mode.open) as db:
        items = sorted(db.pending_work_items, key=lambda item: item.mutations[0].start_pos)
        random.Random(seed).shuffle(items)
        wanted = [item for item in items if _may_change(item.mutations[0], lines)][:most]
        kept = {item.job_id for item in wanted}
        db.set_multiple_results(
            [one.job_id for one in items if one.job_id not in kept], WorkResult(WorkerOutcome.SKIPPED)
        )


def _may_change(mutation: Any, lines: list[str]) -> bool:
    name, line = mutation.operator_name, lines[mutation.start_pos[0] - 1]
    guard = name.endswith("ReplaceTrueWithFalse") and any(word in line for word in GUARDS)
    return not guard and not any(word in name.partition("/")[2] for word in EQUIVALENT)


def tried(session: Path) -> tuple[int, list[str]]:
    """How many mutants of a session were run, and the diffs of those that survived."""
    from cosmic_ray.work_db import WorkDB, use_db
    from cosmic_ray.work_item import WorkerOutcome

    with use_db(str(session), WorkDB.Mode.open) as db:
        results = [result for _, result in db.results if result.worker_outcome != WorkerOutcome.SKIPPED]
    return len(results), [result.diff or "" for result in results if not result.is_killed]


def copy(target: Path) -> None:
    """The tracked files as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(name, target / name, follow_symlinks=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(TESTS)}; all without any")
    parser.add_argument("--most", type=int, default=40, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=0, help="which of them")
    asked = parser.parse_args()
    runs = killed = 0
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        copy(tree)
        for module in asked.modules or TESTS:
            config, session = Path(scratch) / "config.toml", Path(scratch) / f"{module.replace('/', '.')}.sqlite"
            config.write_text(CONFIG.format(module=module, slowest=SLOWEST, python=sys.executable, tests=TESTS[module]))
            cosmic_ray = [sys.executable, "-m", "cosmic_ray.cli"]
            subprocess.run([*cosmic_ray, "init", str(config), str(session)], cwd=tree, check=True)
            subprocess.run([*cosmic_ray, "baseline", str(config)], cwd=tree, check=True)
            sample(session, tree / module, asked.most, asked.seed)
            subprocess.run([*cosmic_ray, "exec", str(config), str(session)], cwd=tree, check=True)
            count, survivors = tried(session)
            for diff in survivors:
                print(diff, end="\n\n")
            print(f"{module}: {count - len(survivors)} of {count} killed", flush=True)
            runs, killed = runs + count, killed + count - len(survivors)
    print(f"all: {killed} of {runs} killed")
    sys.exit(killed < 0.9 * runs)


if __name__ == "__main__":
    main()
