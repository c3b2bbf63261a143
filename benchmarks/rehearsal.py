"""The paper's road to the dataset at any size, on stand-in images: what each stage takes, and what grows faster.

    python benchmarks/rehearsal.py --captions 20000 [100000 ...] [--texts captions.txt]

Five captions an image of 640 x 480 pixels, five types by the rules. Captions are made of the lexicon's words, 12 words
on average, or taken from a CSV file with a column caption; each stands once. Each stage runs alone in a process of its
own; memory is that of it and its children together (resident, what they share counted each time), looked at twice a
second.
"""

import argparse
import csv
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from pipeline.crew import cores
from stages.text.words import lexicon

ROOT = Path(__file__).parents[1]
STAGES = {"ingest": "pairs", "generate": "negatives", "assemble": "dataset"}
PATTERNS = (
    "A {a} {x} stands {p} a {b} {y} {q} the {z}",
    "A {x} and a {a} {y} wait {p} the {b} {z}",
    "Two {a} {x}s {p} a {y} with a {b} {z}",
    "The {a} {x} is {p} the {y} while a {z} sits {q} the {b} {w}",
    "There is a {x} {p} the {a} {y} and a {b} {z} {q} it",
)
PLACES = ("near", "behind", "under", "beside", "in front of", "on", "across from", "inside")
QUALITIES = ("color", "size", "age", "material", "pattern")

STAGE = """
import json, resource, sys, time
from degla import Run

if __name__ == "__main__":
    run = Run.open("rehearsal", json.loads(sys.argv[2]), recipe="photos")
    start = time.monotonic()
    run.make(sys.argv[1])
    wall = time.monotonic() - start
    cpu = sum(sum(resource.getrusage(whose)[:2]) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({"wall": wall, "cpu": cpu}))
"""


class Row(NamedTuple):
    """What one stage took: seconds by the clock, CPU seconds, peak memory in MiB, bytes on disk."""

    captions: int
    stage: str
    wall: float
    cpu: float
    memory: float
    size: int


def made_up(rng: random.Random) -> Iterator[str]:
    """Captions without end, each once."""
    known, seen = lexicon(), set[str]()
    kinds = [[word for word in words if word.isalpha()] for words in known.members.values()]
    things = [word for words in kinds for word in words if known.is_thing(word)]
    qualities = [word for kind in QUALITIES for word in known.members[kind] if word.isalpha()]
    while True:
        x, y, z, w = rng.sample(things, 4)
        a, b = rng.sample(qualities, 2)
        p, q = rng.sample(PLACES, 2)
        text = rng.choice(PATTERNS).format(x=x, y=y, z=z, w=w, a=a, b=b, p=p, q=q)
        if text not in seen:
            seen.add(text)
            yield text


def given(path: Path) -> Iterator[str]:
    """The captions of a file, each once."""
    with path.open(newline="", encoding="utf-8") as handle:
        yield from dict.fromkeys(row["caption"] for row in csv.DictReader(handle))


def picture(rng: random.Random) -> bytes:
    """A JPEG of 640 x 480 like no other: soft patches of colour."""
    patches = Image.frombytes("RGB", (8, 6), rng.randbytes(8 * 6 * 3)).resize((640, 480), Image.Resampling.BILINEAR)
    target = io.BytesIO()
    patches.save(target, "JPEG", quality=85)
    return target.getvalue()


def lay_out(folder: Path, texts: list[str]) -> None:
    """The captions and their images as the recipe `photos` takes them."""
    rng = random.Random(0)
    (folder / "images").mkdir(parents=True)
    with (folder / "captions.txt").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["image", "caption"])
        for start in range(0, len(texts), 5):
            name = f"{start // 5:07}.jpg"
            (folder / "images" / name).write_bytes(picture(rng))
            writer.writerows([name, text] for text in texts[start : start + 5])


def resident(group: int) -> int:
    """Bytes of memory of a process group."""
    pages = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
            if int(fields[2]) == group:
                pages += int((path.parent / "statm").read_text().split()[1])
        except (OSError, IndexError):  # it has ended meanwhile
            continue
    return pages * os.sysconf("SC_PAGE_SIZE")


def rehearse(count: int, stage: str, home: Path, images: Path) -> Row:
    overrides = [f"ingest.root={images}", "generate.max_reject_rate=1.0"]
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(STAGE)
        script.flush()
        process = subprocess.Popen(
            [sys.executable, script.name, stage, json.dumps(overrides)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "DEGLA_HOME": str(home)},
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        peak = 0
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(0.5)
        said = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"rehearsal: {stage} ended with status {process.returncode}")
    took = json.loads(said.splitlines()[-1])
    folder = (home / "rehearsal" / STAGES[stage]).resolve()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Row(count, stage, took["wall"], took["cpu"], peak / 2**20, size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, nargs="+", default=[20_000])
    parser.add_argument("--texts", type=Path, help="CSV file with a column caption, in place of captions made up")
    arguments = parser.parse_args()
    print(
        "| captions | stage | seconds | CPU seconds | share of the cores | captions/s | peak memory, MiB | files, MB |"
    )
    print("|---:|---|---:|---:|---:|---:|---:|---:|")
    for count in arguments.captions:
        texts = list(islice(given(arguments.texts) if arguments.texts else made_up(random.Random(0)), count))
        with tempfile.TemporaryDirectory() as folder:
            images = Path(folder) / "images"
            lay_out(images, texts)
            for stage in STAGES:
                row = rehearse(len(texts), stage, Path(folder) / "home", images)
                share = row.cpu / row.wall / cores()
                print(
                    f"| {row.captions:,} | {row.stage} | {row.wall:,.1f} | {row.cpu:,.1f} | {share:.0%} "
                    f"| {row.captions / row.wall:,.0f} | {row.memory:,.0f} | {row.size / 1e6:,.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
