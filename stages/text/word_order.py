"""The four ways in which ARO changes the order of a caption's words.

In ARO's order: nouns and adjectives change places; all other words do; words do within each trigram; trigrams do.
"""

import random
from collections.abc import Sequence

PERTURBATIONS = ("nouns_and_adjectives", "all_but_those", "within_trigrams", "trigrams")


def perturb(words: list[str], content: Sequence[bool], kind: str, rng: random.Random) -> list[str]:
    """The words in another order, or by chance in the same one.

    Args:
        words: of the caption.
        content: which of them are nouns or adjectives.
        kind: one of `PERTURBATIONS`.
        rng: decides the order.
    """
    if kind == "within_trigrams":
        return [word for group in _trigrams(words) for word in rng.sample(group, len(group))]
    if kind == "trigrams":
        groups = _trigrams(words)
        rng.shuffle(groups)
        return [word for group in groups for word in group]
    moved = [is_content == (kind == "nouns_and_adjectives") for is_content in content]
    picked = [word for word, moves in zip(words, moved, strict=True) if moves]
    rng.shuffle(picked)
    return [picked.pop() if moves else word for word, moves in zip(words, moved, strict=True)]


def _trigrams(words: list[str]) -> list[list[str]]:
    return [words[start : start + 3] for start in range(0, len(words), 3)]
