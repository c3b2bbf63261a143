"""Does a candidate follow from its caption, and is it grammatical: a probability each, by a model that reads both.

A judge is a language model that is asked (any `Scorer`: the log-odds of "yes" against "no" after the question), or a
model of natural language inference, which tells only what follows. Whether one is up to it is measured, not assumed:
`calibrate` sets each threshold where it refuses FEW of what is known to be good, and says what it then refuses of what
is known to be bad. The good are SugarCrepe's human-verified negatives; they follow from no caption and are grammatical.
The bad are other captions of the same image, which are true of it, and the good with two neighbouring words exchanged.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pipeline.negative_types import TRUE_KINDS, UNITS
from stages import labels
from stages.generate.config import OWN, Config
from stages.language_models.base import LanguageModel, Scorer

FEW = 0.05
"""Share of the good that a threshold refuses."""

FOLLOWS = """Caption: A man rides a brown horse. Is it then true that a person is on a horse? yes
Caption: A dog chases a cat. Is it then true that a cat chases a dog? no
Caption: Two girls in red coats wait for a bus. Is it then true that two girls are waiting? yes
Caption: A red cup on a blue table. Is it then true that a blue cup is on a red table? no
Caption: {caption} Is it then true that: {text}?"""

GRAMMATICAL = """Sentence: A dog sleeps on the sofa. Is this good English? yes
Sentence: A sofa the on dog sleeps. Is this good English? no
Sentence: Two men carries a ladder. Is this good English? no
Sentence: A sofa sleeps on the dog. Is this good English? yes
Sentence: {text} Is this good English?"""


class Judge(Protocol):
    """What reads captions and candidates."""

    def follows(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Probability of each (caption, candidate) that the candidate is true where the caption is: [0, 1]."""

    def grammatical(self, texts: Sequence[str]) -> list[float] | None:
        """Probability of each text that it is grammatical: [0, 1]; None from a judge that cannot tell."""


class Asked:
    """A language model that is asked; only the odds of its next word are looked at."""

    def __init__(self, model: Scorer) -> None:
        self._model = model

    def follows(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Probability of "yes" against "no"."""
        return self._yes([FOLLOWS.format(caption=_closed(caption), text=text.rstrip(" .")) for caption, text in pairs])

    def grammatical(self, texts: Sequence[str]) -> list[float]:
        """Probability of "yes" against "no"."""
        return self._yes([GRAMMATICAL.format(text=_closed(text)) for text in texts])

    def _yes(self, questions: Sequence[str]) -> list[float]:
        told = self._model.likelihood([f"{one} {answer}" for one in questions for answer in ("yes", "no")])
        return [_sigmoid(yes - no) for yes, no in zip(told[::2], told[1::2], strict=True)]


def judge_of(config: Config, model: Callable[[], LanguageModel]) -> Judge:
    """The judge that the settings name. Raises UserError when it is not there.

    Args:
        config: the stage's settings, with `verify`.
        model: gives the language model that writes, started.
    """
    if config.verify == OWN:
        writer = model()
        assert isinstance(writer, Scorer)  # the settings allow no other
        return Asked(writer)
    from stages.language_models.nli import Entailment  # torch, transformers

    return Entailment(Path(str(config.verify)).expanduser())


def verify(judge: Judge, config: Config, rows: Sequence[dict[str, Any]], captions: Mapping[str, str]) -> None:
    """Set `follows` and `grammatical` of the accepted rows, and reject those beyond the settings' thresholds.

    Args:
        judge: the judge; it reads each distinct text once.
        config: with the thresholds; what is true of the image may follow from its caption.
        rows: of the negatives table; units are left as they are.
        captions: by pair id.
    """
    accepted = [row for row in rows if row["status"] == "accepted" and row["type"] != UNITS]
    pairs = sorted({(captions[row["pair_id"]], row["text"]) for row in accepted})
    texts = sorted({text for _, text in pairs})
    follows = dict(zip(pairs, judge.follows(pairs), strict=True))
    told = judge.grammatical(texts)
    grammatical = dict(zip(texts, told, strict=True)) if told is not None else {}
    for row in accepted:
        row["follows"] = follows[captions[row["pair_id"]], row["text"]]
        row["grammatical"] = grammatical.get(row["text"])
        if row["follows"] > config.max_follows and row["type"] not in TRUE_KINDS:
            row |= {"status": "rejected", "reason": "follows"}
        elif row["grammatical"] is not None and row["grammatical"] < config.min_grammatical:
            row |= {"status": "rejected", "reason": "ungrammatical"}


def calibrate(
    judge: Judge, true: Sequence[tuple[str, str]], siblings: Sequence[tuple[str, str]], seed: int = 0
) -> dict[str, Any]:
    """Thresholds of a judge, and whether it is up to its questions.

    Args:
        judge: the judge.
        true: captions with a true negative of theirs.
        siblings: two captions of the same image each.
        seed: of the exchanged words.

    Returns:
        `follows` and `grammatical` (None from a judge that cannot tell): `threshold`, which refuses FEW of the good,
        `refused`, the share of the bad that it refuses (value, low, high, n), and `is_able`, whether that share is
        shown to be larger than FEW, at least twice.
    """
    rng = random.Random(seed)
    good = [text for _, text in true]
    grammar = judge.grammatical([*good, *(_garbled(text, rng) for text in good)])
    told = judge.follows([*true, *siblings])
    return {
        "follows": _threshold(told[: len(true)], told[len(true) :]),
        "grammatical": grammar and _turned(_threshold(_minus(grammar[: len(good)]), _minus(grammar[len(good) :]))),
    }


def _threshold(good: Sequence[float], bad: Sequence[float]) -> dict[str, Any]:
    """The value that FEW of the good exceed, and what share of the bad does."""
    threshold = sorted(good)[max(math.ceil((1 - FEW) * len(good)) - 1, 0)]
    refused = labels.share(sum(one > threshold for one in bad), len(bad))
    return {"threshold": threshold, "refused": refused, "is_able": (refused["low"] or 0.0) >= 2 * FEW}


def _turned(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "threshold": -found["threshold"]}


def _minus(values: Sequence[float]) -> list[float]:
    return [-value for value in values]


def _garbled(text: str, rng: random.Random) -> str:
    """The text with two neighbouring words exchanged."""
    words = text.split()
    if len(words) > 1:
        place = rng.randrange(len(words) - 1)
        words[place : place + 2] = words[place + 1], words[place]
    return " ".join(words)


def _closed(text: str) -> str:
    return text if text.rstrip().endswith((".", "!", "?")) else f"{text.rstrip()}."


def _sigmoid(odds: float) -> float:
    return 1 / (1 + math.exp(-max(min(odds, 700.0), -700.0)))
