"""How well the checks tell usable negatives from impostors, on real data.

    python benchmarks/checks.py --data folder [--show 20]

True negatives: SugarCrepe's human-verified ones of the matching type, and NegCLIP's public validation file. Impostors:
identical copies (and copies with another surface), the other human captions of the same photograph (with and without
the checks being told them), chatter and markup, coordinations and other symmetric relations turned round ("A and B" ->
"B and A"), and what a weak language model writes: the caption inflected, without an adjective, without its last phrase,
with a synonym or a wider word for a noun, or with a second caption's content behind it.
"""

import argparse
import ast
import csv
import json
import os
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from pipeline.negative_types import NEGATIVE_TYPES
from stages.generate.checks import Verdict, validate
from stages.text.words import lexicon, parse

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

TURNED = ("NN", "JJ", "VB")

Case = tuple[str, str, str, list[str]]
"""type, caption, candidate, captions of the same picture"""


def sugarcrepe(data: Path) -> Iterator[tuple[str, list[Case]]]:
    for name, kind in SUGARCREPE.items():
        path = data / "benchmarks" / "sugarcrepe" / f"{name}.json"
        rows = json.loads(path.read_text()).values()
        yield f"true: SugarCrepe {name}", [(kind, row["caption"], row["negative_caption"], []) for row in rows]


def negclip(data: Path) -> Iterator[tuple[str, list[Case]]]:
    with (data / "formats" / "neg_clip_valid.tsv").open(newline="") as handle:
        rows = [
            (row["title"], text)
            for row in csv.DictReader(handle, delimiter="\t")
            for text in ast.literal_eval(row["neg_caption"])
        ]
    for kind in ("swap_nouns", "swap_adjectives", "reshuffle_order"):
        yield f"unverified: NegCLIP as {kind}", [(kind, caption, text, []) for caption, text in rows]


def photos(data: Path) -> dict[str, list[str]]:
    captions = defaultdict(list)
    with (data / "photos" / "captions.txt").open(newline="") as handle:
        for row in csv.DictReader(handle):
            captions[row["image"]].append(row["caption"])
    return captions


def impostors(data: Path) -> Iterator[tuple[str, list[Case]]]:
    for name, cases in sugarcrepe(data):
        yield name.replace("true:", "as paraphrase:"), [("paraphrase", *rest) for _, *rest in cases]
    captions = photos(data)
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
    sugar = [
        row["caption"]
        for name in SUGARCREPE
        for row in json.loads((data / "benchmarks/sugarcrepe" / f"{name}.json").read_text()).values()
    ]
    texts = list(dict.fromkeys([caption for caption, _ in every] + sugar))
    for form, turn in (("the A and the B", turned_phrases), ("A and B", turned_words)):
        turned = [(caption, text) for caption in texts if (text := turn(caption))]
        for kind in ("swap_nouns", "swap_adjectives", "reshuffle_order"):
            yield f"{form} turned, {kind}", [(kind, caption, text, []) for caption, text in turned]

    for name, change in WEAK.items():
        changed = [(caption, text) for caption in texts if (text := change(caption)) and text != caption]
        for kind in NEGATIVE_TYPES:
            yield f"{name}, {kind}", [(kind, caption, text, []) for caption, text in changed]
    joined = [(c, f"{c.rstrip(' .')} and {o[:1].lower()}{o[1:]}") for c, group in every for o in group if o != c]
    for kind in NEGATIVE_TYPES:
        yield f"second caption behind, {kind}", [(kind, c, text, []) for c, text in joined]


def inflected(caption: str) -> str | None:
    """ "is running" for "running", "runs" for "is running": the first participle in another form."""
    if match := re.search(r"\b(is|are) (\w{3,})ing\b", caption):
        verb = re.sub(r"([^lsz])\1$", r"\1", match[2])
        return f"{caption[: match.start()]}{verb}{'s' if match[1] == 'is' else ''}{caption[match.end() :]}"
    if match := re.search(r"(?<=[a-z]) (?=\w{3,}ing\b)", caption):
        return f"{caption[: match.start()]} is {caption[match.end() :]}"
    return None


def without_adjective(caption: str) -> str | None:
    """The caption without its first adjective that stands before a noun."""
    for word, following in pairwise(parse(caption)):
        if word.is_adjective and following.is_noun:
            return re.sub(rf"\b{re.escape(word.text)} ", "", caption, count=1)
    return None


def without_phrase(caption: str) -> str | None:
    """The caption without its last phrase of place."""
    match = re.search(r"^(.{15,}) (?:in|on|at|near|with|by) (?:a|an|the|his|her|their) [\w -]+( \.|\.|)$", caption)
    return f"{match[1]}{match[2]}" if match else None


def turned_relation(caption: str) -> str | None:
    """The two ends of "A next to B" (or beside, near, with, talking to) exchanged."""
    beside = r"(?:is |are )?(?:next to|beside|near|talking to|alongside)"
    pattern = rf"^((?:an?|the|two|three) [\w ]+?) ({beside}) (an? \w+)( \.|\.|)$"
    match = re.search(pattern, caption, re.IGNORECASE)
    return f"{match[3].capitalize()} {match[2]} {match[1][:1].lower()}{match[1][1:]}{match[4]}" if match else None


def named_otherwise(caption: str) -> str | None:
    """A synonym, or a wider word, for the first noun that the lexicon has one for."""
    known = lexicon()
    for word in parse(caption):
        others = known.synonyms.get(word.lower, frozenset()) | known.kind_of.get(word.lower, frozenset())
        others = {other for other in others if other != word.lower and known.stays_true(word.lower, other)}
        if word.is_noun and others:
            return re.sub(rf"\b{re.escape(word.text)}\b", min(others), caption, count=1)
    return None


WEAK: dict[str, Callable[[str], str | None]] = {
    "inflected": inflected,
    "without an adjective": without_adjective,
    "without its last phrase": without_phrase,
    "symmetric relation turned": turned_relation,
    "synonym or wider word": named_otherwise,
}


def turned_phrases(caption: str) -> str | None:
    """Two noun phrases with articles around "and", in each other's place."""
    match = COORDINATION.search(caption)
    if not match or match["x"] == match["y"]:
        return None
    return f"{caption[: match.start()]}{match['y']} and {match['x']}{caption[match.end() :]}"


def turned_words(caption: str) -> str | None:
    """Two words of one part of speech around "and", in each other's place.

    Left out where the turn says something else: a noun that an adjective or another noun stands before ("red apples
    and pears"), or that goes on into another noun, and where punctuation sits between.
    """
    words = parse(caption)
    for i in range(1, len(words) - 1):
        if (
            words[i].lower != "and"
            or words[i - 1].tag[:2] != words[i + 1].tag[:2]
            or words[i + 1].tag[:2] not in TURNED
        ):
            continue
        before = words[i - 2].tag[:2] if i > 1 else ""
        after = words[i + 2].tag[:2] if i + 2 < len(words) else ""
        if words[i + 1].is_noun and (before in ("JJ", "NN", "CD", "VB") or after == "NN"):
            continue
        if words[i + 1].tag.startswith("VB") and after not in (".", ""):
            continue
        one, two = words[i - 1].text, words[i + 1].text
        if one.lower() != two.lower() and f"{one} and {two}" in caption:
            return caption.replace(f"{one} and {two}", f"{two} and {one}", 1)
    return None


def report(name: str, cases: list[Case], show: int, *, true: bool) -> tuple[int, float]:
    start = time.perf_counter()
    verdicts = [validate(kind, caption, text, siblings) for kind, caption, text, siblings in cases]
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
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("DEGLA_TEST_DATA"),  # argparse makes a Path of it
        help="holds benchmarks/sugarcrepe/, formats/neg_clip_valid.tsv, photos/captions.txt; else $DEGLA_TEST_DATA",
    )
    parser.add_argument("--show", type=int, default=0, help="wrong decisions to print per set")
    parser.add_argument("--only", default="", help="sets whose name holds this")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("no data; expected --data FOLDER or $DEGLA_TEST_DATA")
    validate("swap_nouns", "a dog and a cat", "a cat and a dog")
    done, seconds = 0, 0.0
    for group, true in ((sugarcrepe, True), (negclip, True), (impostors, False)):
        for name, cases in group(arguments.data):
            if arguments.only in name:
                count, spent = report(name, cases, arguments.show, true=true)
                done, seconds = done + count, seconds + spent
    print(f"{done / seconds:,.0f} candidates/s on one core")


if __name__ == "__main__":
    main()
