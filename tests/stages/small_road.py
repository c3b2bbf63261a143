"""A small finished road for the tests of evaluate and report: real files, real artifacts, a real (random) open_clip."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from pipeline import clip, tables
from pipeline.artifact import Artifact, now
from pipeline.negative_types import NEGATIVE_TYPES
from pipeline.schema import DATASET, LEAKS, NEGATIVES, PAIRS, PAIRS_REJECTED, steps_schema
from pipeline.stage import silent
from pipeline.store import Store
from stages.train.config import Loss
from stages.train.terms import columns

COLOURS = ("red", "green", "blue", "yellow", "black", "white")
TOWER: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}


@dataclass(frozen=True)
class SmallRoad:
    """The artifacts a road ends with, before evaluate."""

    store: Store
    root: Path
    artifacts: dict[str, Artifact]

    def publish(self, kind: str, meta: dict[str, Any], fill: Any, stage: str | None = None) -> Artifact:
        with self.store.build(kind, "0" * 16) as partial:
            fill(partial)
            return self.store.publish(
                partial,
                manifest={
                    "kind": kind,
                    "stage": stage or kind,
                    "stage_version": 1,
                    "fingerprint": "0" * 16,
                    "config": {"seed": 1},
                    "inputs": {},
                    "outside": {},
                    "meta": meta,
                    "started": now(),
                },
            )


def model_folder(folder: Path) -> Path:
    """An architecture without weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(TOWER))
    return folder


def picture(path: Path, left: str, right: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (40, 40), "grey")
    draw = ImageDraw.Draw(image)
    draw.ellipse((2, 10, 18, 30), fill=left)
    draw.rectangle((22, 10, 38, 30), fill=right)
    image.save(path)


def caption(left: str, right: str) -> str:
    return f"a {left} circle beside a {right} square"


def build(home: Path, pairs: int = 24) -> SmallRoad:
    """Pairs, negatives, dataset and model, as their stages leave them."""
    road = SmallRoad(Store(home), home / "root", {})
    rng = np.random.default_rng(0)
    facts = []
    for index in range(pairs):
        left, right = (str(name) for name in rng.choice(COLOURS, 2, replace=False))
        facts.append((f"{index:016x}", f"scenes:test:{index}", f"{index}.png", left, right))
    split = ["test" if index % 3 == 0 else "train" for index in range(pairs)]

    def fill_pairs(out: Path) -> None:
        for _, _, uri, left, right in facts:
            picture(out / "images" / uri, left, right)
        rows = [
            {
                "pair_id": pair,
                "image_key": key,
                "image_uri": uri,
                "image_sha256": key,
                "phash": 1,
                "width": 40,
                "height": 40,
                "caption": caption(left, right),
                "source": "scenes",
                "split": s,
                "scene": None,
            }
            for (pair, key, uri, left, right), s in zip(facts, split, strict=True)
        ]
        tables.write(tables.part(out, 0), rows, PAIRS)
        refused = [{"origin": "x:1", "image_uri": None, "caption": "", "reason": "empty_caption", "detail": "''"}]
        tables.write(tables.part(out / "pairs_rejected", 0), refused, PAIRS_REJECTED)
        write_benchmarks(out / "benchmarks")

    def negative(kind: str, left: str, right: str) -> str | None:
        return {
            "reshuffle_order": f"a {right} square beside a {left} circle beside",
            "swap_nouns": f"a {left} square beside a {right} circle",
            "swap_adjectives": caption(right, left),
            "replace_nouns": f"a {left} star beside a {right} square",
        }.get(kind)

    def fill_negatives(out: Path) -> None:
        rows = [
            {
                "pair_id": pair,
                "type": kind,
                "text": (text := negative(kind, left, right)),
                "attempt": 0,
                "status": "accepted" if text else "not_applicable",
                "reason": None if text else "no_adjective",
                "raw_reply": None,
                "finish_reason": "stop",
                "prompt_tokens": 10,
                "reply_tokens": 5,
                "model": "rules",
                "prompt_digest": "0",
                "weight": 1.0,
            }
            for pair, _, _, left, right in facts
            for kind in NEGATIVE_TYPES
        ]
        tables.write(tables.part(out, 0), rows, NEGATIVES)

    tokenize = clip.tokenizer(str(model_folder(home / "tower")))

    def fill_dataset(out: Path) -> None:
        rows = []
        for (pair, key, uri, left, right), s in zip(facts, split, strict=True):
            texts = {kind: negative(kind, left, right) for kind in NEGATIVE_TYPES}
            tokens = {f"{kind}_tokens": tokenize([text])[0] if text else None for kind, text in texts.items()}
            rows.append(
                {
                    "pair_id": pair,
                    "image_key": key,
                    "image_group": key,
                    "image_uri": uri,
                    "caption": caption(left, right),
                    **texts,
                    "paraphrases": None,
                    "chances": None,
                    "split": s,
                    "leaks": [],
                    "caption_tokens": tokenize([caption(left, right)])[0],
                    **tokens,
                    "paraphrases_tokens": None,
                }
            )
        tables.write(tables.part(out, 0), rows, DATASET)
        leak = {"benchmark": "sugarcrepe", "subset": "swap_att", "row_id": "0", "rule": "caption_hash"}
        tables.write(tables.part(out / "leaks", 0), [{"pair_id": facts[1][0], **leak}], LEAKS)

    start: dict[str, Any] = {"model": str(home / "tower"), "pretrained": None, "seed": 3}

    def fill_model(out: Path) -> None:
        import torch

        made = clip.load(**start)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weights in made.model.parameters():
                weights.add_(0.02 * torch.randn(weights.shape, generator=generator))
        clip.save(made, out / "student")
        schema = steps_schema(columns(Loss().weights()))
        steps = pa.table(
            {
                field.name: pa.array(
                    np.linspace(1, 20, 20) if field.name == "step" else 1 / np.linspace(1, 3, 20)
                ).cast(field.type, safe=False)
                for field in schema
            }
        )
        tables.write(tables.part(out / "steps", 0), steps, schema)

    counts = {"train": split.count("train"), "test": split.count("test")}
    for kind, meta, fill, stage in (
        ("pairs", {"image_root": "images"}, fill_pairs, "ingest"),
        ("negatives", {"tokens": 15}, fill_negatives, "generate"),
        ("dataset", {"splits": counts}, fill_dataset, "assemble"),
        ("model", {"start": start}, fill_model, "train"),
    ):
        road.artifacts[kind] = road.publish(kind, meta, fill, stage)
    return road


def scored(road: SmallRoad, **config: Any) -> SmallRoad:
    """The same road with its scores."""
    from stages.evaluate import STAGE, Config

    out = road.store.home / "scored"
    out.mkdir()
    meta = STAGE.run(Config(**config), road.artifacts, out, silent)

    def fill(partial: Path) -> None:
        for part in out.glob("*.parquet"):
            shutil.copy(part, partial)

    road.artifacts["scores"] = road.publish("scores", meta, fill, "evaluate")
    return road


def write_benchmarks(root: Path) -> None:
    """One SugarCrepe subset, two VALSE files, ARO's three formats and one zero-shot folder, four to 27 rows each."""

    def save(path: str, content: object) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(json.dumps(content))

    couples = [("red", "blue"), ("green", "white"), ("black", "yellow"), ("blue", "red")]
    for benchmark in ("sugarcrepe", "valse", "aro"):
        for index, (left, right) in enumerate(couples):
            picture(root / benchmark / "images" / f"{index}.png", left, right)
    named = [(f"{index}.png", caption(*both), caption(*both[::-1])) for index, both in enumerate(couples)]
    for subset in ("swap_att", "add_obj"):
        rows = {
            str(index): {"filename": name, "caption": true, "negative_caption": false}
            for index, (name, true, false) in enumerate(named)
        }
        save(f"sugarcrepe/{subset}.json", rows)
    for subset in ("existence", "plurals"):
        rated: dict[str, dict[str, Any]] = {
            f"{subset}_{index}": {
                "image_file": name,
                "caption": true,
                "foil": false,
                "linguistic_phenomena": subset,
                "mturk": {"caption": 3 if index else 1, "foil": 0, "other": 0},
            }
            for index, (name, true, false) in enumerate(named)
        }
        save(f"valse/{subset}.json", rated)
    box = {"bbox_x": 0, "bbox_y": 0, "bbox_w": 20, "bbox_h": 40}
    aro = [{"image_path": name, "true_caption": true, "false_caption": false, **box} for name, true, false in named]
    relations = [
        row | {"relation_name": name} for row, name in zip(aro, ["above", "below", "above", "by"], strict=True)
    ]
    save("aro/visual_genome_relation.json", relations)
    attributes = [
        aro[index % 4] | {"attributes": ["red", "blue"] if index < 25 else ["tall", "short"]} for index in range(27)
    ]
    save("aro/visual_genome_attribution.json", attributes)
    order = [
        {"image_path": name, "caption_options": [true, false, false, true, false + " x"]} for name, true, false in named
    ]
    save("aro/coco_order.json", order)
    for index, colour in enumerate(COLOURS):
        for copy in range(2):
            picture(root / "zeroshot/circles/images" / f"{index}_{colour}" / f"{copy}.png", colour, COLOURS[copy])
    names = {"classnames": [f"{colour} circle" for colour in COLOURS], "templates": ["a picture of a {}.", "a {}"]}
    save("zeroshot/circles/classes.json", names)
