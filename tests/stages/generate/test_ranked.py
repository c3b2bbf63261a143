"""The order of proposals: by a real scorer, a model of letter pairs counted from captions."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from stages.generate.backends import BACKENDS
from stages.generate.ranked import RankedBackend, nearest_first
from stages.generate.rules import Rules, RulesBackend, Vocabulary
from stages.language_models.base import Backend, Corpus, Request, Response, Settings
from tests.stages.generate.canned import captions, read, work


class Letters:
    """Log-probability of a text by its letter pairs, as a corpus has them."""

    def __init__(self, corpus: Sequence[str]) -> None:
        self._pairs = Counter(pair for text in corpus for pair in pairwise(f"^{text}$"))
        self._firsts = Counter(letter for text in corpus for letter in f"^{text}")
        self.scored: list[str] = []

    def likelihood(self, texts: Sequence[str]) -> list[float]:
        self.scored += texts
        return [
            sum(math.log((self._pairs[pair] + 0.1) / (self._firsts[pair[0]] + 5)) for pair in pairwise(f"^{text}$"))
            for text in texts
        ]

    def respond(self, *_: Any) -> list[Response]:
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        return {"letters": len(self._firsts)}

    def close(self) -> None:
        pass


class LettersBackend(Backend):
    def identity(self, settings: Settings) -> str:
        return "letters 1"

    def open(self, settings: Settings, corpus: Corpus, log: Path) -> Letters:
        return Letters(list(corpus(100)))


CORPUS = [caption for _, caption in captions(30)]


@pytest.mark.parametrize("kind", ["swap_nouns", "replace_nouns", "replace_adjectives"])
def test_proposals_come_nearest_first_none_is_lost_and_each_text_is_scored_once(kind: str) -> None:
    rules, scorer = Rules(Vocabulary.of(CORPUS)), Letters(CORPUS)
    requests = [Request(caption, 0, seed, 99) for seed, caption in enumerate(CORPUS)]
    proposed = list(rules.respond(kind, [], requests))
    ranked = nearest_first(scorer, CORPUS, proposed)
    assert len(scorer.scored) == len(set(scorer.scored))
    moved = 0
    for caption, before, after in zip(CORPUS, proposed, ranked, strict=True):
        was, now = ([one.text or "" for one in (first, *first.others)] for first in (before, after))
        assert sorted(was) == sorted(now)
        truth, *told = scorer.likelihood([caption, *now])
        distances = [abs(one - truth) for one in told]
        assert distances == sorted(distances)
        moved += was != now
    assert moved > 5


def test_what_is_no_text_stays_as_it_is_and_costs_nothing() -> None:
    scorer = Letters(CORPUS)
    alone = [Response("not applicable", "stop"), Response(None, "language"), Response("a cat", "stop")]
    assert nearest_first(scorer, ["a dog"] * 3, alone) == alone and not scorer.scored


def test_the_backend_takes_any_scorer_and_the_checks_take_the_nearest_that_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKENDS, "ranked", RankedBackend(RulesBackend(), LettersBackend()))
    rows = captions(30)
    out, meta = work(tmp_path, rows, backend="ranked", model="m", likelihood=True, max_reject_rate=1.0)
    assert meta["generator"]["letters"] > 10 and "vocabulary" in meta["generator"]
    found = [row for row in read(out) if row["status"] == "accepted"]
    assert {row["model"] for row in found} == {"ranked:m"}
    plain, _ = work(tmp_path, rows, "plain", backend="rules", max_reject_rate=1.0)
    scorer = Letters([caption for _, caption in rows])
    by_id = {(row["pair_id"], row["type"]): row["text"] for row in read(plain) if row["status"] == "accepted"}
    near, far = 0.0, 0.0
    for row in found:
        text = by_id[row["pair_id"], row["type"]]
        ranked, plainly = scorer.likelihood([row["text"], text])
        near += abs(row["likelihood"])
        far += abs(row["likelihood"] + ranked - plainly)
    assert near < 0.7 * far
