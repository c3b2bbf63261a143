"""Proposals of the rules, ranked by a language model: first the one whose likelihood lies nearest to its caption's.

The rules say what could be false, the model what reads like a caption. Because a negative is as likely as its caption,
likelihood tells the less of which is which. The model only reads (prefill), a dozen short texts per caption and type;
what the checks then reject is in the table with its reason, and the next nearest is taken.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.stage import Inputs
from stages.generate.checks import NOT_APPLICABLE
from stages.language_models.base import (
    Backend,
    Corpus,
    LanguageModel,
    Message,
    Request,
    Response,
    Scorer,
    Settings,
)

BATCH = 256
"""Requests whose texts are scored together."""


class RankedBackend(Backend):
    """`generate.model` ranks, as for vllm."""

    needs_prompt = False
    repairs = False
    is_scorer = True

    def __init__(self, proposer: Backend, scorer: Backend) -> None:
        """Any backend may propose, any whose model is a `Scorer` may rank."""
        self._proposer, self._scorer = proposer, scorer

    def name(self, settings: Settings) -> str:
        """With the model's name."""
        return f"{settings.backend}:{settings.model}"

    def identity(self, settings: Settings) -> str:
        """That of both."""
        return f"{self._proposer.identity(settings)}, {self._scorer.identity(settings)}"

    def source(self, settings: Settings, prompt: str, inputs: Inputs) -> dict[str, Any]:
        """What decides the proposals, and the model."""
        facts = {"backend": settings.backend, "model": self.identity(settings)}
        return {**self._proposer.source(settings, prompt, inputs), **facts}

    def open(self, settings: Settings, corpus: Corpus, log: Path) -> "Ranked":
        """Open both."""
        scorer = self._scorer.open(settings, corpus, log)
        return Ranked(self._proposer.open(settings, corpus, log), scorer)


class Ranked:
    """One language model's responses, put in order by another's likelihood."""

    def __init__(self, proposer: LanguageModel, scorer: LanguageModel) -> None:
        assert isinstance(scorer, Scorer)
        self._proposer, self._scorer = proposer, scorer
        self.likelihood = scorer.likelihood

    def respond(self, kind: str, prefix: list[Message], requests: Sequence[Request]) -> Iterator[Response]:
        """Responses in the order of the requests, each followed by its others."""
        for start in range(0, len(requests), BATCH):
            some = requests[start : start + BATCH]
            proposed = list(self._proposer.respond(kind, prefix, some))
            yield from nearest_first(self._scorer, [request.caption for request in some], proposed)

    def facts(self) -> dict[str, Any]:
        """Those of both."""
        return {**self._proposer.facts(), **self._scorer.facts()}

    def close(self) -> None:
        """Close both."""
        self._proposer.close()
        self._scorer.close()


def nearest_first(scorer: Scorer, captions: Sequence[str], responses: Sequence[Response]) -> list[Response]:
    """Each response and its others, put in order of how near their log-probability is to their caption's.

    Texts are scored once each; what is no text, or "not applicable", comes last.
    """
    texts = {
        text
        for caption, first in zip(captions, responses, strict=True)
        if first.others
        for text in (caption, *(one.text for one in (first, *first.others)))
        if text and text != NOT_APPLICABLE
    }
    ordered = sorted(texts)
    logprob = dict(zip(ordered, scorer.likelihood(ordered), strict=True)) if ordered else {}

    def distance(caption: str, response: Response) -> float:
        return abs(logprob[response.text] - logprob[caption]) if response.text in logprob else math.inf

    ranked = []
    for caption, response in zip(captions, responses, strict=True):
        tries = [replace(one, others=()) for one in (response, *response.others)]
        if response.others:
            tries.sort(key=lambda one: distance(caption, one))
        ranked.append(replace(tries[0], others=tuple(tries[1:])))
    return ranked
