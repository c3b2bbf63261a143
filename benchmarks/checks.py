"""How well the checks tell usable negatives from impostors, on real data.

    python benchmarks/checks.py [--shared ../shared] [--show 20]

True negatives: SugarCrepe's human-verified ones of the matching type, and NegCLIP's public validation file. Impostors:
identical copies (and copies with another surface), the other human captions of the same photograph (with and without
the checks being told them), chatter and markup, and coordinations turned round ("A and B" -> "B and A").
"""

import argparse
import ast
import csv
import json
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.schema import NEGATIVE_TYPES
from stages.checks import Verdict, judge

SUGARCREPE = {
    "replace_obj": "replace_nouns",
    "replace_att": "replace_adjectives",
    "swap_obj": "swap_nouns",
    "swap_att": "swap_adjectives",
}
CHATTER = (
    "Sure, here is the caption: {}",
    "Here is a hard negative: {}",
    "I cannot rewrite this caption.",
    "**{}**",
    "{}\n\nNote: I swapped the nouns.",
    "Negative caption: {}",
    "As an AI language model, I cannot see the picture.",
    "<answer>{}</answer>",
    "1. {}\n2. {}",
    "There are no adjectives in this caption.",
)
COORDINATION = re.compile(
    r"\b(?P<x>(?:a|an|the) (?:\w+ )?\w+) and (?P<y>(?:a|an|the|two|some) (?:\w+ )?\w+)"
    r"(?= (?:in|on|at|are|is|with|near|by)\b|\s*\.|$)"
)

Case = tuple[str, str, str, list[str]]
"""type, caption, candidate, captions of the same picture"""


def sugarcrepe(shared: Path) -> Iterator[tuple[str, list[Case]]]:
    for name, kind in SUGARCREPE.items():
        path = shared / "benchmarks" / "sugarcrepe" / f"{name}.json"
        rows = json.loads(path.read_text()).values()
        yield f"true: SugarCrepe {name}", [(kind, row["caption"], row["negative_caption"], []) for row in rows]


def negclip(shared: Path) -> Iterator[tuple[str, list[Case]]]:
    with (shared / "formats" / "neg_clip_valid.tsv").open(newline="") as handle:
        rows = [
            (row["title"], text)
            for row in csv.DictReader(handle, delimiter="\t")
            for text in ast.literal_eval(row["neg_caption"])
        ]
    for kind in ("swap_nouns", "swap_adjectives", "reshuffle_order"):
        yield f"unverified: NegCLIP as {kind}", [(kind, caption, text, []) for caption, text in rows]


def photos(shared: Path) -> dict[str, list[str]]:
    captions = defaultdict(list)
    with (shared / "photos" / "captions.txt").open(newline="") as handle:
        for row in csv.DictReader(handle):
            captions[row["image"]].append(row["caption"])
    return captions


def impostors(shared: Path) -> Iterator[tuple[str, list[Case]]]:
    captions = photos(shared)
    every = [(caption, group) for group in captions.values() for caption in group]
    alike: list[Callable[[str], str]] = [str, str.lower, str.upper, lambda text: text.rstrip(" .") + "!"]
    yield "identical", [(kind, c, change(c), []) for kind in NEGATIVE_TYPES for c, _ in every for change in alike]
    others = [(c, o, group) for c, group in every for o in group if o != c]
    yield "other caption, known", [(kind, c, o, group) for kind in NEGATIVE_TYPES for c, o, group in others]
    yield "other caption, not told", [(kind, c, o, []) for kind in NEGATIVE_TYPES for c, o, _ in others]
    yield (
        "chatter",
        [(kind, c, text.format(c, c), []) for kind in NEGATIVE_TYPES for c, _ in every[:500] for text in CHATTER],
    )
    turned = []
    sugar = [
        row["caption"]
        for name in SUGARCREPE
        for row in json.loads((shared / "benchmarks/sugarcrepe" / f"{name}.json").read_text()).values()
    ]
    for caption in dict.fromkeys([c for c, _ in every] + sugar):
        match = COORDINATION.search(caption)
        if match and match["x"] != match["y"]:
            swapped = f"{match['y']} and {match['x']}"
            turned.append((caption, caption[: match.start()] + swapped + caption[match.end() :]))
    for kind in ("swap_nouns", "swap_adjectives", "reshuffle_order"):
        yield f"A and B turned, {kind}", [(kind, c, text, []) for c, text in turned]


def report(name: str, cases: list[Case], show: int, *, true: bool) -> tuple[int, float]:
    start = time.perf_counter()
    verdicts = [judge(kind, caption, text, siblings) for kind, caption, text, siblings in cases]
    seconds = time.perf_counter() - start
    passed = sum(verdict.status == "accepted" for verdict in verdicts)
    reasons = Counter(verdict.reason for verdict in verdicts if verdict.reason)
    print(f"{name:36} n {len(cases):6}  accepted {passed / len(cases):7.2%}  {dict(reasons.most_common(5))}")
    wrong: list[tuple[Case, Verdict]] = [
        pair for pair in zip(cases, verdicts, strict=True) if (pair[1].status == "accepted") != true
    ]
    for case, verdict in random.Random(0).sample(wrong, min(show, len(wrong))):
        print(f"    [{verdict.reason}] {case[0]}\n      + {case[1].strip()}\n      - {case[2].strip()}")
    return len(cases), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--show", type=int, default=0, help="wrong decisions to print per set")
    parser.add_argument("--only", default="", help="sets whose name holds this")
    arguments = parser.parse_args()
    judge("swap_nouns", "a dog and a cat", "a cat and a dog")
    done, seconds = 0, 0.0
    for group, true in ((sugarcrepe, True), (negclip, True), (impostors, False)):
        for name, cases in group(arguments.shared):
            if arguments.only in name:
                count, spent = report(name, cases, arguments.show, true=true)
                done, seconds = done + count, seconds + spent
    print(f"{done / seconds:,.0f} candidates/s on one core")


if __name__ == "__main__":
    main()
