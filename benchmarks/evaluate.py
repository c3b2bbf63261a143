"""degla's evaluation against scoring one row at a time, in the same process, on the same model, files and machine.

One row at a time is how the benchmarks' own scripts work: open the image, encode it, encode each of its texts at the
full 77 tokens, compare. Prints both times, their ratio and the largest difference of a similarity.

    python benchmarks/evaluate.py                                     # the built-in world's sets, ViT-B-32
    python benchmarks/evaluate.py --sugarcrepe <folder of its JSON>   # the real texts; stand-in images where absent
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline import clip
from pipeline.clip import Clip
from stages.benchmarks import loaders as benchmarks
from stages.benchmarks.rows import Subset
from stages.evaluate.encoder import Encoder
from stages.evaluate.scoring import score


def one_row_at_a_time(model: Clip, subsets: Sequence[Subset]) -> list[list[float]]:
    """As SugarCrepe's main_eval.py does it, by open_clip's own encoders: each text and each image of a row alone."""
    import torch

    network, context = model.model, model.description["context_length"]
    found = []
    with torch.no_grad():
        for subset in subsets:
            for row in subset.rows:
                assert row.image
                text_D = []
                for ids in model.tokenize(list(row.texts)):
                    tokens = torch.zeros(1, context, dtype=torch.int64)
                    tokens[0, : len(ids)] = torch.tensor(ids)
                    text_D.append(network.encode_text(tokens, normalize=True))
                image_D = network.encode_image(model.preprocess(row.image()).unsqueeze(0), normalize=True)
                found.append([(one @ image_D.T).item() for one in text_D])
    return found


def sugarcrepe(source: Path, root: Path, rows: int) -> None:
    """The first rows of every subset that lie on the fewest images in order, so that images repeat as they do."""
    rng = np.random.default_rng(0)
    files = {path: list(json.loads(path.read_bytes()).items()) for path in sorted(source.glob("*.json"))}
    counts = {name: 0 for items in files.values() for _, row in items for name in [row["filename"]]}
    for items in files.values():
        for _, row in items:
            counts[row["filename"]] += 1
    chosen: set[str] = set()
    for name in sorted(counts):
        if sum(counts[one] for one in chosen) >= rows:
            break
        chosen.add(name)
    (root / "sugarcrepe" / "images").mkdir(parents=True)
    for path, items in files.items():
        kept = {key: row for key, row in items if row["filename"] in chosen}
        if kept:
            (root / "sugarcrepe" / path.name).write_text(json.dumps(kept))
    for name in chosen:
        if (source / "images" / name).exists():
            (root / "sugarcrepe" / "images" / name).symlink_to((source / "images" / name).resolve())
        else:
            _stand_in(root / "sugarcrepe" / "images" / name, rng)


def _stand_in(path: Path, rng: np.random.Generator) -> None:
    """A JPEG of COCO's usual size with a photograph's share of detail."""
    from PIL import Image

    small = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    small.resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--pretrained", default=None, help="tag or file; without it the weights are random")
    parser.add_argument("--sugarcrepe", type=Path, default=None, help="folder with SugarCrepe's JSON files")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds, where others use the machine")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if options.sugarcrepe:
            sugarcrepe(options.sugarcrepe, root, options.rows)
        else:
            from stages.world.datasets import write_benchmarks

            write_benchmarks(root, n=max(25, options.rows // 15))
        names = [name for name in benchmarks.available(root) if name != "zeroshot"]
        subsets = [subset for name in names for subset in benchmarks.load(name, root, official=False)]
        model = clip.load(options.model, options.pretrained)
        encoder = Encoder(lambda: model, device=options.device)
        _ = encoder.clip

        clock = time.process_time if options.cpu_time else time.perf_counter
        start = clock()
        rows = score(encoder, subsets, "model", set())
        fast = clock() - start
        start = clock()
        alone = one_row_at_a_time(model, subsets)
        slow = clock() - start

    away = max(
        abs(a - b) for row, one in zip(rows, alone, strict=True) for a, b in zip(row["similarities"], one, strict=True)
    )
    flips = sum(
        (one[0] > max(one[1:])) != (row["similarities"][0] > max(row["similarities"][1:]))
        for row, one in zip(rows, alone, strict=True)
    )
    images = len({row.image for subset in subsets for row in subset.rows})
    texts = len({text for subset in subsets for row in subset.rows for text in row.texts})
    print(f"{options.model}: {len(rows)} rows on {images} images, {texts} distinct texts")
    print(f"one row at a time {slow:8.1f} s   {len(rows) / slow:8.1f} rows/s")
    print(f"degla             {fast:8.1f} s   {len(rows) / fast:8.1f} rows/s   {slow / fast:.1f} x")
    print(f"largest difference of a similarity {away:.1e}; rows decided differently: {flips}")


if __name__ == "__main__":
    main()
