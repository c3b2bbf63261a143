"""Pairs, canned responses to them, and the stage run on both, as the tests of this folder need them."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline import tables
from pipeline.artifact import Artifact, Manifest
from pipeline.negative_types import NEGATIVE_TYPES
from pipeline.schema import PAIRS
from pipeline.stage import silent
from stages.generate import STAGE, Config
from stages.generate.responses import caption_key

THINGS = ("dog", "cat", "boy", "girl", "horse", "bird", "chair", "car", "house", "tree", "ball", "boat")


COLOURS = ("red", "blue", "green", "white", "black", "brown", "yellow")


def pairs(home: Path, rows: list[tuple[str, str]]) -> Artifact:
    """A pairs artifact of (picture, caption) rows, as ingest leaves it."""
    folder = home / "store" / "pairs" / hashlib.sha256(repr(rows).encode()).hexdigest()[:16]
    facts = {"image_uri": "a.jpg", "image_sha256": "0" * 64, "phash": 0, "width": 1, "height": 1, "source": "csv",
             "split": "train", "scene": None}  # fmt: skip
    table = [
        {"pair_id": caption_key(f"{image}\0{caption}"), "image_key": image, "caption": caption, **facts}
        for image, caption in rows
    ]
    part = tables.part(folder, 0)
    if not part.exists():  # another process of this test may have made it, and be reading
        tables.write(part, [{name: row[name] for name in PAIRS.names if name in row} for row in table], PAIRS)
    content = {part.name: hashlib.sha256(part.read_bytes()).hexdigest()}
    manifest = {
        "format": 1, "kind": "pairs", "stage": "ingest", "stage_version": 1, "fingerprint": folder.name, "config": {},
        "inputs": {}, "outside": {}, "meta": {}, "rows": {}, "files": content, "packages": {}, "git": {},
        "hardware": {}, "started": "", "finished": "",
    }  # fmt: skip
    return Artifact(folder, Manifest.model_validate(manifest))


def captions(count: int) -> list[tuple[str, str]]:
    rng = random.Random(0)
    rows = []
    for index in range(count):
        one, two = rng.sample(THINGS, 2)
        first, second = rng.sample(COLOURS, 2)
        rows.append((f"p{index // 2}", f"A {first} {one} stands before a {second} {two} on day {index}."))
    return rows


def canned(path: Path, rows: list[tuple[str, str]], wrong: float = 0.3) -> Path:
    """ResponseCache to all captions; some of them bad, the repairs good."""
    rng = random.Random(1)
    lines = []
    for _, caption in rows:
        words = caption.rstrip(".").split()
        swapped = [*words[:2], words[7], *words[3:7], words[2], *words[8:]]
        mixed = [words[0], words[6], *words[2:6], words[1], *words[7:]]
        replaced = [*words[:2], "zebra", *words[3:]]
        recoloured = [words[0], "pink", *words[2:]]
        good = dict(zip(NEGATIVE_TYPES, (swapped, swapped, mixed, replaced, recoloured), strict=True))
        for kind, answer in good.items():
            text = " ".join(answer) + "."
            if rng.random() < wrong:
                bad = rng.choice((caption, "Sure, here it is: " + text, "not applicable", "A dog."))
                lines.append({"type": kind, "caption": caption, "reply": bad, "reply_tokens": 5, "prompt_tokens": 50})
                lines.append({"type": kind, "caption": caption, "reply": text, "attempt": 1, "reply_tokens": 6})
            else:
                lines.append({"type": kind, "caption": caption, "reply": text, "reply_tokens": 7, "prompt_tokens": 50})
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def work(home: Path, rows: list[tuple[str, str]], name: str = "f", **settings: Any) -> tuple[Path, dict[str, Any]]:
    """Run the stage into `<home>/store/negatives/<name>.partial`, as the road does."""
    out = home / "store" / "negatives" / f"{name}.partial"
    out.mkdir(parents=True, exist_ok=True)
    return out, STAGE.run(Config(**settings), {"pairs": pairs(home, rows)}, out, silent)


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in tables.files(out)}


def read(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = tables.read(out).to_pylist()
    return rows


def reply_rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def kept(home: Path, kind: str = "*") -> dict[str, bytes]:
    return {str(p.relative_to(home)): p.read_bytes() for p in home.glob(f"replies/{kind}/*/*.parquet")}
