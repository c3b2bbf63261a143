"""What one core loads for training, pairs a second: images decoded each time, and kept decoded in the home.

    python benchmarks/loader.py [--images folder] [--count 1024] [--batch 256] [--home folder]

A pair is an image with its caption, four negatives of 8 to 16 tokens and the tree of their texts, as training takes
them; five captions an image. Without --images the images are stand-ins of 640 x 480 pixels. Per CPU second of one
thread, so that others on the machine do not count; files are in the page cache, and batches are looked at before they
are timed. First what is kept is compared with what is decoded: they must be equal, byte by byte; and with open_clip's
transforms, which the released training uses.
"""

import argparse
import io
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline import clip
from pipeline.clip import Clip, Pooling
from pipeline.negative_types import NEGATIVE_TYPES
from pipeline.stage import silent
from stages.train.batches import Batch, Batches, load
from stages.train.pictures import Images
from stages.train.rows import Rows

CAPTIONS = 5
NEGATIVES = 4


def picture(draw: random.Random) -> bytes:
    """A JPEG of 640 x 480: soft patches of colour with some grain."""
    patches = Image.frombytes("RGB", (8, 6), draw.randbytes(8 * 6 * 3)).resize((640, 480), Image.Resampling.BILINEAR)
    grain = Image.frombytes("RGB", (320, 240), draw.randbytes(320 * 240 * 3)).resize((640, 480))
    target = io.BytesIO()
    Image.blend(patches, grain, 0.15).save(target, "JPEG", quality=90)
    return target.getvalue()


def rows_of(folder: Path, names: list[str], seed: int = 0) -> Rows:
    """Rows as the dataset has them, of random texts that begin alike."""
    draw = np.random.default_rng(seed)
    count, kinds = len(names) * CAPTIONS, len(NEGATIVE_TYPES)
    lengths = draw.integers(8, 17, count)
    tokens: Any = []
    for column in range(1 + kinds):
        texts = []
        for row, length in enumerate(lengths):
            text = np.random.default_rng((seed, row)).integers(1, 49_000, length)
            text[draw.integers(0, length)] += column  # a word is another
            texts.append([49_406, *text.tolist(), 49_407])
        offsets = np.concatenate([[0], np.cumsum([len(text) for text in texts])])
        tokens.append((np.concatenate(texts).astype(np.int32), offsets))
    files = np.repeat(np.arange(len(names)), CAPTIONS)
    return Rows(
        root=folder,
        uris=names,
        sha256=[None] * len(names),
        image_file=files,
        image_group=files,
        tokens=tokens,
        have=np.ones((count, kinds), dtype=bool),
        chances=np.ones((count, kinds), dtype=np.float32),
        depicting=np.full((count, kinds), -1),
    )


def rate(batches: Batches, pooled: Pooling | None, least: float) -> float:
    """Pairs per CPU second as training loads them in this process; at least so many seconds."""
    done, begun = 0, time.process_time()
    while time.process_time() - begun < least:
        for _ in load(batches, 0, 0, 1, pooled):
            done += 1
            if time.process_time() - begun >= least:
                break
    return done * batches.batch / (time.process_time() - begun)


def distance(model: Clip, folder: Path, names: list[str], images: Images, theirs: Callable[..., Any]) -> float:
    """Mean difference of a kept image from open_clip's transform, grey levels of 255; the normalisation taken out."""
    found = []
    deviation = torch.tensor(model.description["preprocess"]["std"])[:, None, None]
    for number, name in enumerate(names):
        expected = theirs(Image.open(folder / name).convert("RGB"))
        found.append(((clip.normalise(model, images[number][None])[0] - expected).abs() * deviation * 255).mean())
    return float(torch.stack(found).mean())


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.image_BCHW, other.image_BCHW) and torch.equal(one.tokens_NL, other.tokens_NL)


def measure(folder: Path, home: Path, arguments: argparse.Namespace) -> list[tuple[str, str, float]]:
    """Rows of the table: how images are cut, what, figure."""
    model = clip.load(arguments.model, None)
    names = sorted(path.name for path in folder.glob("*.jp*g"))[: arguments.count]
    rows, pooled, found = rows_of(folder, names), clip.pooling(model.model), []
    for crop in ("center", "random"):
        fresh, kept = Images(rows, model, crop), Images(rows, model, crop)
        begun = time.process_time()
        kept.keep(home, 1, silent)
        found.append((crop, "images decoded and kept per CPU second", len(names) / (time.process_time() - begun)))
        found.append((crop, "kept on disk, MB", kept.nbytes / 1e6))
        each, mapped = (Batches(rows, images, arguments.batch, NEGATIVES, 1, 0) for images in (fresh, kept))
        assert same(each[0], mapped[0]), "what is kept is not what is decoded"
        for step in range(len(mapped)):
            mapped[step]
        found.append((crop, "pairs per CPU second, decoded each time", rate(each, pooled, arguments.seconds)))
        found.append((crop, "pairs per CPU second, kept", rate(mapped, pooled, arguments.seconds)))
        if crop == "center":
            apart = distance(model, folder, names[:64], kept, model.preprocess)
            found.append((crop, "mean difference from open_clip's transform, of 255", apart))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of JPEG files")
    parser.add_argument("--home", type=Path, help="where decoded images are kept; default: a folder that is removed")
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--count", type=int, default=1024, help="images")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=3.0, help="CPU seconds per figure, at least")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.images or Path(temporary) / "images"
        if not arguments.images:
            folder.mkdir()
            draw = random.Random(0)
            for number in range(arguments.count):
                (folder / f"{number:06}.jpg").write_bytes(picture(draw))
        print("| crop | what | figure |\n|---|---|---:|")
        for crop, what, figure in measure(folder, arguments.home or Path(temporary), arguments):
            print(f"| {crop} | {what} | {figure:,.1f} |")


if __name__ == "__main__":
    main()
