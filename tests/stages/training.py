"""A small model and small artifacts for the tests of training, and a training of them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline import clip, tables
from pipeline.artifact import Artifact, now
from pipeline.negative_types import NEGATIVE_TYPES, UNITS
from pipeline.schema import PAIRS, dataset_schema
from pipeline.stage import silent
from pipeline.store import Store
from stages.train import stage as train
from stages.train.config import Config

COLOURS = ("red", "green", "blue", "yellow", "black", "white", "pink", "brown", "grey", "orange")


def small_clip(folder: Path, **more: Any) -> str:
    """A folder with the configuration of a CLIP that trains in milliseconds, `more` of it; no weights."""
    arch = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / clip.CONFIG).write_text(json.dumps({"model_cfg": arch | more}))
    return str(folder)


def small_siglip(folder: Path) -> str:
    """The same as a SigLIP: a sigmoid's bias, a text tower that sees all of a padded text and pools at its end."""
    tower: dict[str, Any] = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    tower |= {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}
    return small_clip(folder, custom_text=True, init_logit_bias=-10, init_logit_scale=math.log(10), text_cfg=tower)


def small_inputs(
    folder: Path, pictures: int = 12, same: tuple[str, str] | None = None, tokenizer: str = "ViT-B-32"
) -> dict[str, Artifact]:
    """Published pairs and dataset: noise images with two captions each, negatives, rewrites and units with gaps.

    Of two types that are the `same`, the second has the texts of the first.
    """
    store = Store(folder / "home")
    tokenize = clip.tokenizer(tokenizer)
    rng = np.random.default_rng(0)
    rows = []
    with store.build("pairs", "p") as out:
        for index in range(pictures):
            noise = rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)
            (out / "images").mkdir(exist_ok=True)
            Image.fromarray(noise).save(out / "images" / f"{index}.png")
            for number in range(2):
                caption = f"{COLOURS[index % 10]} thing {index} seen {number}"
                base = {"pair_id": f"{index:02d}{number}", "image_key": f"k{index}", "image_group": f"k{index}"}
                base |= {"image_uri": f"{index}.png", "caption": caption, "split": "train"}
                texts = {
                    kind: f"{kind} of {caption}" if (index + number + place) % 3 else None
                    for place, kind in enumerate(NEGATIVE_TYPES)
                }
                if same:
                    texts[same[1]] = texts[same[0]]
                tokens = {
                    f"{name}_tokens": None if text is None else tokenize([text])[0]
                    for name, text in {"caption": caption, **texts}.items()
                }
                rewrites = [f"rewrite {one} of {caption}" for one in range((index + number) % 3)] or None
                more = {"paraphrases": rewrites, "paraphrases_tokens": rewrites and tokenize(rewrites)}
                units = [f"thing {index}", f"side {number}"][: (index + 2 * number) % 3] or None
                named = {"units": units, "unit_foils": units and [f"no {text}" for text in units]}
                tokens |= {f"{name}_tokens": each and tokenize(each) for name, each in named.items()}
                rows.append(base | texts | tokens | more | named | {"chances": None, "leaks": []})
        tables.write(tables.part(out, 0), [], PAIRS)  # training reads the images alone
        published = _publish(store, out, "pairs", {"image_root": "images"})
    rows.append(rows[0] | {"pair_id": "zz", "split": "test"})
    with store.build("dataset", "d") as out:
        # Two parts, because training must not care.
        schema = dataset_schema([UNITS])
        tables.write(tables.part(out, 0), rows[:5], schema)
        tables.write(tables.part(out, 1), rows[5:], schema)
        meta = {"tokenizer": clip.tokenizer_digest(tokenizer)}
        return {"pairs": published, "dataset": _publish(store, out, "dataset", meta)}


def _publish(store: Store, out: Path, kind: str, meta: dict) -> Artifact:
    manifest = {"kind": kind, "stage": kind, "stage_version": 1, "fingerprint": kind[0], "config": {}, "inputs": {}}
    return store.publish(out, manifest=manifest | {"outside": {}, "meta": meta, "started": now()})


STEPS = 12  # 12 images with 2 captions in batches of 6, 3 epochs
TIMINGS = ("samples_per_s", "data_wait")


def config(world: dict[str, Any], **changes: Any) -> Config:
    settings = {"model": world["model"], "pretrained": None, "epochs": 3, "batch": 6, "lr": 1e-3, "warmup": 2}
    return Config(**{**settings, "workers": 0, "checkpoint_steps": 3, "device": "cpu", **changes})


def made(world: dict[str, Any], out: Path, progress: Any = silent, **changes: Any) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    meta = train.run(config(world, **changes), world["inputs"], out, progress)
    steps = tables.read(out / "steps").drop_columns(TIMINGS).to_pydict()
    return {
        "meta": meta,
        "student": (out / "student" / clip.WEIGHTS).read_bytes(),
        "teacher": (out / "teacher.safetensors").read_bytes(),
        "steps": {name: values for name, values in steps.items() if not all(map(math.isnan, values))},
    }


class StoppedError(Exception):
    pass


def stop_at(step: int) -> Any:
    def progress(what: str, done: int, total: int) -> None:
        if what.startswith("steps") and done == step:
            raise StoppedError

    return progress
