"""Images per second and core, from JPEG files to the tensors a step reads: ours against the released way.

    python benchmarks/loader.py --images folder [--count 200] [--rounds 3]

The released way decodes the whole JPEG, converts, resizes, crops and normalises in floats, image by image
(open_clip's transform). Ours decodes at the smallest scale of the JPEG that suffices, keeps bytes, and normalises the
batch. Alternating, one thread, files in the page cache.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from pipeline import clip
from stages.train.batches import Images, Rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of JPEG files")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = clip.load("ViT-B-32", None)
    names = sorted(path.name for path in arguments.images.glob("*.jpg"))[: arguments.count]
    rows = Rows(arguments.images, names, *([None] * 6))  # type: ignore[arg-type] - images need no more
    images = Images(rows, model)

    def ours() -> torch.Tensor:
        return clip.normalise(model, torch.stack([images[index] for index in range(len(names))]))

    def released() -> torch.Tensor:
        return torch.stack([model.preprocess(Image.open(arguments.images / name).convert("RGB")) for name in names])

    apart = (ours() - released()).abs()
    print(f"{len(names)} images; values differ by {apart.mean():.3f} on average (one grey level is 0.015)")
    speeds: dict[str, list[float]] = {"ours": [], "released": []}
    for _ in range(arguments.rounds):
        for name, work in (("ours", ours), ("released", released)):
            speeds[name].append(len(names) / seconds(work))
    for name, found in speeds.items():
        print(f"{name:9} {statistics.median(found):8.1f} images/s and core")
    ratios = [here / there for here, there in zip(speeds["ours"], speeds["released"], strict=True)]
    print(f"ratio     {statistics.median(ratios):.2f} (each round: {', '.join(f'{ratio:.2f}' for ratio in ratios)})")


def seconds(work: Callable[[], torch.Tensor]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
