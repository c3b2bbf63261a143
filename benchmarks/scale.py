"""What a run of many captions takes, stage by stage: time, money and storage, calculated from measured rates.

    python benchmarks/scale.py                          # the table of docs/scale.md
    python benchmarks/scale.py --gpus 8 --gpu-price 3

The rates of one core are measured (docs/benchmarks.md); those of a GPU are not: `--tokens` and `--utilisation` are
assumptions to be replaced by your own (`degla sql RUN "select sum(reply_tokens) from negatives"` over the stage's time,
`samples_per_s` of the steps table).
"""

import argparse
from typing import NamedTuple

from pipeline.schema import NEGATIVE_TYPES

TYPES = len(NEGATIVE_TYPES)
EPOCHS = 5
NEGATIVES = 4
HOUR = 3600

IMAGE_TOKENS, IMAGE_PARAMETERS = 50, 86e6
"""ViT-B/32 at 224 pixels: tokens of a picture and weights of the tower that each of them meets."""

TEXT_PARAMETERS = 38e6

PICTURE_BYTES = 3 * 224**2
"""A picture that is kept decoded."""


class Row(NamedTuple):
    """One stage: hours of a core, of a GPU, and gigabytes on disk."""

    stage: str
    core_hours: float
    gpu_hours: float
    gigabytes: float


def training_flop(text_tokens: float) -> float:
    """FLOP of one pair and step: the student forward and backward (6 per weight and token), the teacher forward (2)."""
    texts = (1 + NEGATIVES) * text_tokens * TEXT_PARAMETERS
    return (6 + 2) * (IMAGE_TOKENS * IMAGE_PARAMETERS + texts)


def stages(captions: float, options: argparse.Namespace) -> list[Row]:
    pictures = captions / options.captions_per_picture
    requests = captions * TYPES * options.attempts
    fresh = options.reply_tokens + options.prompt_tokens * (1 - options.prefix_hits)
    flop = captions * EPOCHS * training_flop(options.text_tokens)
    # Decoded once and kept; a pair that is loaded then is mostly copied.
    loaded = pictures / options.decoded_per_s + captions * EPOCHS / options.loaded_per_s
    return [
        Row("images on disk", 0, 0, pictures * options.picture_kb / 1e6),
        Row("ingest", pictures / options.pictures_per_s / HOUR, 0, captions * 150 / 1e9),
        Row(
            "generate",
            requests / options.judged_per_s / HOUR,
            requests * fresh / options.tokens / HOUR,
            requests * 90 / 1e9,
        ),
        Row("assemble", captions * (1 + TYPES) / options.rows_per_s * 2 / HOUR, 0, captions * 295 / 1e9),
        Row(
            "train",
            loaded / HOUR,
            flop / (options.peak_tflops * 1e12 * options.utilisation) / HOUR,
            1.8 + pictures * PICTURE_BYTES / 1e9,
        ),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=float, nargs="+", default=[2e6, 20e6, 400e6])
    parser.add_argument("--captions-per-picture", type=float, default=5, help="5 as in COCO, 1 for web pairs")
    parser.add_argument("--picture-kb", type=float, default=160, help="COCO's mean; 256 pixels: about 20")
    parser.add_argument("--cores", type=int, default=16, help="beside each GPU")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--gpu-price", type=float, default=2.5, help="per hour with its cores (assumption)")
    parser.add_argument("--pictures-per-s", type=float, default=233, help="ingested by one core (measured)")
    parser.add_argument("--decoded-per-s", type=float, default=191, help="decoded and kept by one core (measured)")
    parser.add_argument("--loaded-per-s", type=float, default=12_200, help="pairs loaded by one core then (measured)")
    parser.add_argument("--rows-per-s", type=float, default=101_037, help="assembled by two cores (measured)")
    parser.add_argument("--judged-per-s", type=float, default=5700, help="candidates judged by one core (measured)")
    parser.add_argument("--prompt-tokens", type=float, default=1241, help="measured, 50 examples")
    parser.add_argument("--prefix-hits", type=float, default=0.979, help="measured")
    parser.add_argument("--reply-tokens", type=float, default=14, help="measured")
    parser.add_argument("--attempts", type=float, default=1.3, help="asks per negative, second tries included")
    parser.add_argument("--text-tokens", type=float, default=14, help="of a caption, start and end included")
    parser.add_argument(
        "--tokens", type=float, default=10_000, help="fresh tokens/s of an 8B model, one GPU (assumption)"
    )
    parser.add_argument("--peak-tflops", type=float, default=990, help="of the GPU, dense bf16 (its data sheet)")
    parser.add_argument("--utilisation", type=float, default=0.3, help="share of it reached in training (assumption)")
    options = parser.parse_args()
    cores = options.cores * options.gpus
    print("| captions | stage | core hours | GPU hours | on disk, GB | wall time | waits for | money |")
    print("|---:|---|---:|---:|---:|---:|---|---:|")
    for captions in options.captions:
        for row in stages(captions, options):
            waits = {"cores": row.core_hours / cores, "GPU": row.gpu_hours / options.gpus}
            slowest = max(waits, key=lambda name: waits[name])
            wall = waits[slowest]
            shown = (
                ("", "", "") if not wall else (_time(wall), slowest, f"{wall * options.gpus * options.gpu_price:,.0f}")
            )
            figures = (f"{row.core_hours:,.1f}", f"{row.gpu_hours:,.1f}", f"{row.gigabytes:,.1f}")
            print(f"| {captions / 1e6:g} M | {row.stage} | {' | '.join((*figures, *shown))} |")


def _time(hours: float) -> str:
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"


if __name__ == "__main__":
    main()
