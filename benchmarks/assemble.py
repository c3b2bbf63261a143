"""How fast, in how much memory, and how linearly `assemble` works; against the same job in plain Python on a sample.

    python benchmarks/assemble.py --captions 200000 2000000
    python benchmarks/assemble.py --captions 2000000 --memory 500MB

Captions are words drawn by Zipf's law in the lengths of COCO captions, five to a picture, each with five negatives.
Prints rows (pairs and negatives) per second, peak memory of the process, the ratio to the plain version on a sample of
the same data in the same run, and the time per row of the largest size over that of the smallest. With less `--memory`
than the texts take, DuckDB works through the disk.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import tables
from pipeline.artifact import Artifact, Manifest
from pipeline.clip import tokenizer
from pipeline.negative_types import NEGATIVE_TYPES
from pipeline.schema import NEGATIVES, PAIRS
from pipeline.stage import silent
from stages.assemble import STAGE, Config

CHUNK = 100_000
SAMPLE = 5_000
VOCABULARY = 20_000


def words(rng: np.random.Generator) -> list[str]:
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    return ["".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(VOCABULARY)]


def make(folder: Path, captions: int) -> None:
    """Pairs (five captions a picture) and their negatives (one word of the caption replaced, or two swapped)."""
    rng = np.random.default_rng(0)
    vocabulary = np.array(words(rng), dtype=object)
    for index, start in enumerate(range(0, captions, CHUNK)):
        count = min(CHUNK, captions - start)
        lengths = np.clip(rng.normal(10.5, 2.4, count).astype(int), 5, 30)
        drawn = vocabulary[np.minimum(rng.zipf(1.3, lengths.sum()), VOCABULARY) - 1]
        split = np.split(drawn, np.cumsum(lengths)[:-1])
        ids = [hashlib.sha256(f"{start + i}".encode()).hexdigest()[:16] for i in range(count)]
        pictures = [(start + i) // 5 for i in range(count)]
        rows = {
            "pair_id": ids,
            "image_key": [f"coco:train2014:{number:012d}" for number in pictures],
            "image_uri": [f"COCO_train2014_{number:012d}.jpg" for number in pictures],
            "image_sha256": [f"{number:064x}" for number in pictures],
            "phash": np.array(pictures, np.uint64) * np.uint64(0x9E3779B97F4A7C15),
            "width": np.full(count, 640, np.int32),
            "height": np.full(count, 480, np.int32),
            "caption": [" ".join(text) for text in split],
            "source": ["coco"] * count,
            "split": ["test" if number % 100 == 0 else "train" for number in pictures],
            "scene": [None] * count,
        }
        tables.write(tables.part(folder / "pairs", index), pa.table(rows), PAIRS)
        texts = []
        for text in split:
            for kind in range(5):
                changed = text.copy()
                one, two = rng.integers(0, len(text), 2)
                if kind < 3:
                    changed[one], changed[two] = changed[two], changed[one]
                else:
                    changed[one] = vocabulary[rng.integers(VOCABULARY)]
                texts.append(" ".join(changed))
        total = 5 * count
        same = [text == rows["caption"][i // 5] for i, text in enumerate(texts)]
        negatives = {
            "pair_id": np.repeat(np.array(ids, dtype=object), 5),
            "type": list(NEGATIVE_TYPES) * count,
            "text": texts,
            "status": ["rejected" if equal else "accepted" for equal in same],
            "reason": ["identical" if equal else None for equal in same],
            "attempt": np.zeros(total, np.int8),
            "raw_reply": texts,
            "finish_reason": ["stop"] * total,
            "prompt_tokens": np.full(total, 900, np.int32),
            "reply_tokens": np.full(total, 12, np.int32),
            "model": ["zipf"] * total,
            "prompt_digest": ["none"] * total,
            "likelihood": [None] * total,
            "weight": np.ones(total, np.float32),
        }
        tables.write(tables.part(folder / "negatives", index), pa.table(negatives), NEGATIVES)


def plain(inputs: dict[str, Artifact], captions: int) -> tuple[float, float]:
    """The same work, row by row, with open_clip's own encoder: read, check, find copies, pivot, tokenise, write.

    Gives rows per second, of the clock and of CPU time.
    """
    import open_clip

    tokenizer = open_clip.get_tokenizer("ViT-B-32")

    def tokenize(text: str) -> list[int]:
        return [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id][: tokenizer.context_length]

    chosen = set(
        pq.read_table(tables.files(inputs["pairs"].path)[0], columns=["pair_id"])["pair_id"].to_pylist()[:captions]
    )
    start, cpu = time.perf_counter(), time.process_time()
    pairs = pq.read_table(tables.files(inputs["pairs"].path)[0]).slice(0, captions).to_pylist()
    negatives = pq.read_table(tables.files(inputs["negatives"].path)[0]).slice(0, 5 * captions).to_pylist()
    by_pair: dict[str, dict[str, str]] = defaultdict(dict)
    captions_of: dict[str, set[str]] = defaultdict(set)
    first_copy: dict[object, str] = {}
    group_of = {}
    for row in pairs:
        assert row["caption"].strip()
        captions_of[row["image_key"]].add(row["caption"].lower())
        key = first_copy.setdefault(row["image_sha256"], row["image_key"])
        group_of[row["image_key"]] = first_copy.setdefault(row["phash"], key)
    key_of = {row["pair_id"]: row["image_key"] for row in pairs}
    for row in negatives:
        assert row["pair_id"] in chosen
        if row["status"] == "accepted":
            assert row["text"].strip() and row["type"] not in by_pair[row["pair_id"]]
            if row["text"].lower() not in captions_of[key_of[row["pair_id"]]]:
                by_pair[row["pair_id"]][row["type"]] = row["text"]
    made = []
    for row in sorted(pairs, key=lambda row: row["pair_id"]):
        record = {name: row[name] for name in ("pair_id", "image_key", "image_uri", "caption", "split")}
        record["image_group"] = group_of[row["image_key"]]
        record["caption_tokens"] = tokenize(row["caption"])
        for kind in NEGATIVE_TYPES:
            text = by_pair[row["pair_id"]].get(kind)
            record[kind], record[f"{kind}_tokens"] = text, tokenize(text) if text else None
        made.append(record)
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.Table.from_pylist(made), Path(folder) / "plain.parquet", compression="zstd")
    return 6 * captions / (time.perf_counter() - start), 6 * captions / (time.process_time() - cpu)


def measure(captions: int, memory: str) -> dict[str, float]:
    """One size in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, __file__, "--one", str(captions), "--memory", memory]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def one(captions: int, memory: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, __file__, "--make", str(captions), name], check=True)
        manifest = {"files": {}, "meta": {"image_root": "images"}}
        inputs = {
            kind: Artifact(folder / kind, Manifest.model_construct(kind=kind, **manifest))
            for kind in ("pairs", "negatives")
        }
        (folder / "out").mkdir()
        tokenizer("ViT-B-32")(["warm"])
        start, cpu = time.perf_counter(), time.process_time()
        STAGE.run(Config(tokenizer="ViT-B-32", memory=memory), inputs, folder / "out", silent)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        files = tables.files(folder / "out")
        megabytes = sum(path.stat().st_size for path in files) / len(files) / 1e6
        rate, cpu_rate = plain(inputs, min(SAMPLE, captions))
    return {
        "captions": captions,
        "seconds": seconds,
        "peak_gb": int(peak.split()[1]) / 2**20,
        "plain_rows_per_s": rate,
        "cpu_seconds": cpu_seconds,
        "plain_rows_per_cpu_s": cpu_rate,
        "files": len(files),
        "file_mb": megabytes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--memory", default="2GB", help="what DuckDB may use")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(Path(options.make[1]), int(options.make[0]))
        return
    if options.one:
        print(json.dumps(one(options.one, options.memory)))
        return
    results = [measure(captions, options.memory) for captions in sorted(options.captions)]
    for result in results:
        rows = 6 * result["captions"]
        rate = rows / result["seconds"]
        print(
            f"{int(result['captions']):>9,} captions, {rows:,.0f} rows: {result['seconds']:.1f} s, {rate:,.0f} rows/s, "
            f"peak {result['peak_gb']:.2f} GB, {result['files']} files of {result['file_mb']:.0f} MB, "
            f"{rate / result['plain_rows_per_s']:.1f} x plain Python ({result['plain_rows_per_s']:,.0f} rows/s), "
            f"in CPU time {rows / result['cpu_seconds'] / result['plain_rows_per_cpu_s']:.1f} x"
        )
    small, large = results[0], results[-1]
    if large is not small:
        growth = (large["seconds"] / large["captions"]) / (small["seconds"] / small["captions"])
        print(f"time per row at {int(large['captions']):,} over {int(small['captions']):,}: {growth:.2f} (1 = linear)")


if __name__ == "__main__":
    main()
