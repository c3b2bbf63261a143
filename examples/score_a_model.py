"""Score any CLIP on a folder of benchmarks, without a run; `degla eval` does the same from the command line.

    python examples/score_a_model.py ViT-B-32 /data/benchmarks --pretrained openai
    python examples/score_a_model.py runs/demo/model/student /data/benchmarks --benchmarks sugarcrepe,valse

MODEL is an open_clip architecture, hf-hub:owner/name, or an open_clip folder. How the folder of benchmarks looks:
docs/benchmarks-data.md; `degla data fetch` gets what may be fetched.
"""

import argparse
from functools import partial

from degla import clip, measure


def main() -> None:
    """Print every aggregate with its 95 % interval."""
    parser = argparse.ArgumentParser(description="Score a CLIP on a folder of benchmarks")
    parser.add_argument("model")
    parser.add_argument("root", help="folder of benchmarks")
    parser.add_argument("--pretrained", help="open_clip tag or weights file")
    parser.add_argument("--benchmarks", help="comma-separated; default: all there are")
    parser.add_argument(
        "--official", action=argparse.BooleanOptionalAction, default=True,
        help="hold the files against known counts and digests",
    )  # fmt: skip
    asked = parser.parse_args()

    found = measure(
        {"mine": partial(clip.load, asked.model, asked.pretrained)},
        root=asked.root,
        benchmarks=asked.benchmarks.split(",") if asked.benchmarks else None,
        official=asked.official,
    )
    print(f"{'score':32} {'right':>7}  {'95 % interval':17} {'chance':>7} {'rows':>7}")
    for name, one in found.aggregates.items():
        mine = one["mine"]
        if mine["value"] is None:
            print(f"{name:32} {'-':>7}  nothing could be scored")
            continue
        interval = f"[{mine['low']:.1%}, {mine['high']:.1%}]"
        chance = "-" if one["chance"] is None else f"{one['chance']:.1%}"
        print(f"{name:32} {mine['value']:7.1%}  {interval:17} {chance:>7} {one['n']:7,}")
    # found.scores has a row for each row of a benchmark, with all similarities; found.protocols says what was measured.


if __name__ == "__main__":
    main()
