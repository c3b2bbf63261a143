"""What grows in a long run: memory over captions, shards and training steps, Prefect's database over rows of data.

    python benchmarks/hygiene.py [captions] [shards] [steps] [database] [--captions N] [--count N] [--steps N]

captions: peak memory of `ingest` (Parquet of captions and picture names) by that with a tenth of the captions.
shards: peak memory of `generate` (rules, one shard per four captions) after all shards by that after a tenth of them.
steps: memory of `train` after all steps by that after a tenth. database: bytes that one run of ingest, generate and
assemble adds to Prefect's database, with ten times the pictures by with once.
"""

import argparse
import json
import multiprocessing
import os
import resource
import sqlite3
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from pipeline.stage import silent
from stages.ingest import STAGE, Config
from stages.ingest.records import Format
from stages.road import STAGES, Run

ARCH = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
"""Of a CLIP so small that ten thousand steps take minutes; what grows does not depend on it."""
ROOT = Path(__file__).resolve().parents[1]
TINY = {
    "ingest": {"source": "scenes", "world": {"pictures": 60, "captions": 2, "benchmark_rows": 24}},
    "generate": {"backend": "rules", "max_reject_rate": 1.0},
    "assemble": {"tokenizer": "data/clip_tiny"},
    "train": {"model": "data/clip_tiny", "pretrained": None, "workers": 0, "batch": 2, "checkpoint_steps": 500},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["captions", "shards", "steps", "database"])
    parser.add_argument("--captions", type=int, default=400_000)
    parser.add_argument("--count", type=int, default=1000, help="shards")
    parser.add_argument("--steps", type=int, default=10_000)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        for what in arguments.what:
            home = Path(folder) / what
            print(
                json.dumps(
                    {"captions": captions, "shards": shards, "steps": steps, "database": database}[what](
                        home, arguments
                    )
                )
            )


def captions(home: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Peak memory of `ingest`, each in a process of its own."""
    peaks = []
    for rows in (arguments.captions // 10, arguments.captions):
        root = home / str(rows)
        (root / "images").mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(root / "images" / "a.png")
        told = {"image": ["a.png"] * rows, "caption": [f"A cup with the number {row}." for row in range(rows)]}
        pq.write_table(pa.table(told), root / "captions.parquet")
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            peaks.append(pool.submit(ingested, root).result())
    return {
        "captions": arguments.captions,
        "MiB": [round(peak) for peak in peaks],
        "ratio": round(peaks[1] / peaks[0], 2),
    }


def ingested(root: Path) -> float:
    """Peak memory of this process after the captions of a folder were taken in, MiB."""
    (root / "out").mkdir()
    layout = Format(captions="captions.parquet")
    STAGE.run(Config(source="parquet", root=root, format=layout), {}, root / "out", silent)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def shards(home: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Memory of `generate` while shards are judged."""
    settings = [f"ingest.world.pictures={arguments.count * 2}", "generate.shard_size=4"]
    return memory(home, "generate", settings, "shards judged")


def steps(home: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Memory of `train` from step to step."""
    epochs = -(-arguments.steps // 50)
    return memory(home, "train", [f"train.epochs={epochs}"], "steps")


def memory(home: Path, last: str, settings: list[str], what: str) -> dict[str, object]:
    """MiB in use after a tenth and after all of a stage's work."""
    source = home / "hygiene.yaml"
    home.mkdir()
    source.write_text(yaml.safe_dump(TINY))
    (home / "open_clip_config.json").write_text(json.dumps({"model_cfg": ARCH}))
    settings = [*settings, f"train.model={home}", f"assemble.tokenizer={home}"]
    run, seen = Run.open("hygiene", settings, recipe=str(source), home=home), {}

    def watch(said: str, done: int, total: int) -> None:
        if said.startswith(what):
            seen.setdefault("total", total)
            seen[done] = resident()

    for name in list(STAGES)[: list(STAGES).index(last) + 1]:
        run.make(name, lambda: nullcontext(watch))
    total = seen.pop("total")
    early, late = seen[min(seen, key=lambda done: abs(done - total / 10))], seen[total]
    return {what: total, "MiB at a tenth": round(early), "MiB at the end": round(late), "ratio": round(late / early, 3)}


def resident() -> float:
    """Memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def database(home: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Bytes a run adds to Prefect's database; the first run in a home makes the tables and does not count."""
    source = home / "hygiene.yaml"
    home.mkdir()
    source.write_text(yaml.safe_dump(TINY))
    added, before = {}, 0
    for name, pictures in (("first", 60), ("once", 60), ("ten", 600)):
        degla = [str(Path(sys.executable).with_name("degla")), "run", str(source), "--name", name]
        settings = [f"ingest.world.pictures={pictures + (name == 'first')}"]
        words = ["--until", "assemble", *(word for setting in settings for word in ("--set", setting))]
        subprocess.run([*degla, *words], cwd=ROOT, env=os.environ | {"DEGLA_HOME": str(home)}, check=True,
                       capture_output=True)  # fmt: skip
        with closing(sqlite3.connect(home / "prefect" / "prefect.db")) as sql:
            pages, free = (sql.execute(f"pragma {ask}").fetchone()[0] for ask in ("page_count", "freelist_count"))
            size = (pages - free) * sql.execute("pragma page_size").fetchone()[0]
        added[name], before = size - before, size
    return {f"bytes, {name}": size for name, size in added.items()} | {"ratio": round(added["ten"] / added["once"], 2)}


if __name__ == "__main__":
    main()
