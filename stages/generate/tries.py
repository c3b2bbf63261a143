"""The tries of one caption and type, in order: what each request was told, what it brought, what the checks say of it.

The first request is the caption alone. A repair says what was wrong with the response before: it is a further turn of
the chat, so a response to it is known by what it was told as well.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from stages.generate.checks import Verdict, validate
from stages.generate.responses import Tries
from stages.generate.shards import Entry, Pair
from stages.language_models.base import LINE, Response

_WRONG = {
    "it is the caption unchanged": "identical",
    "it says the same as the caption": "nothing_moved nothing_replaced entailed same_meaning no_noun_moved "
    "no_adjective_moved no_noun_replaced no_adjective_replaced",
    "it is still true of the same picture": "still_true other_quality other_caption",
    "it has words that the caption does not have": "other_words",
    "words of the caption are missing": "lost_words noun_lost adjective_lost action_lost less_said word_lost",
    "more was changed than asked for": "much_replaced rearranged elsewhere not_only_denied",
    "it does not deny exactly one thing": "already_denied not_denied_once",
    "it does not say that something further is missing": "nothing_absent not_absent",
    "what it says is missing may be in the picture": "named",
    "it is not a list of parts of the caption, each with a false one": "not_units not_said",
    "what it calls false may be true": "may_hold",
    "it is not grammatical": "grammar sentences repeated",
    "it is not as long as the caption": "length cut",
    "it means something else": "more_said other_counts other_relations other_roles",
}
_WORDS = {reason: words for words, reasons in _WRONG.items() for reason in reasons.split()}


class TryRules(NamedTuple):
    """How a caption is tried.

    Attributes:
        width: responses that a request may bring.
        attempts: requests that may be made.
        says_why: a repair says what was wrong.
    """

    width: int
    attempts: int
    says_why: bool


class Judged(NamedTuple):
    """A response, its number among all of the caption, and the verdict for one pair."""

    number: int
    response: Response
    verdict: Verdict


@dataclass(frozen=True)
class Try:
    """One request for a caption.

    Attributes:
        kind, caption: what was requested.
        pairs: those of the caption for which no try before brought anything.
        attempt: 0 for the first, then the repairs.
        rejected, told: of a repair, as of a `Request`.
        responses: what it brought, by number; empty when it was not made yet.
    """

    kind: str
    caption: str
    pairs: list[Pair]
    attempt: int
    rejected: str
    told: str
    responses: Mapping[int, Response]

    @cached_property
    def judged(self) -> list[tuple[Pair, list[Judged]]]:
        """For each pair the verdicts in order, up to the first that is no rejection."""
        return [(pair, list(self._judge(pair))) for pair in self.pairs]

    def _judge(self, pair: Pair) -> Iterator[Judged]:
        for number, response in self.responses.items():
            verdict = judge(self.kind, self.caption, response, pair)
            yield Judged(number, response, verdict)
            if verdict.status != "rejected":
                return

    @property
    def left(self) -> list[Pair]:
        """Pairs that it brought nothing for."""
        return [pair for pair, verdicts in self.judged if verdicts[-1].verdict.status == "rejected"]

    @property
    def complaint(self) -> tuple[str, str]:
        """A rejected response and what to say of it; both empty when there is none that can be shown, or no words."""
        first = next(verdicts[0] for _, verdicts in self.judged if verdicts[-1].verdict.status == "rejected")
        text, words = first.response.text or "", _WORDS.get(first.verdict.reason or "")
        if words is None or not re.fullmatch(LINE, text):
            return "", ""
        return text, f"This cannot be used: {words}. Answer again for the caption:\n{self.caption}"


def tries(kind: str, entry: Entry, known: Tries, rules: TryRules) -> Iterator[Try]:
    """A caption's tries; the last is not made yet, or leaves no pair without a response, or is the last allowed."""
    pairs, rejected, told = entry.pairs, "", ""
    for attempt in range(rules.attempts):
        numbers = range(attempt * rules.width, (attempt + 1) * rules.width)
        came = {number: known[number, was] for number, was in sorted(known) if was == told and number in numbers}
        made = Try(kind, entry.caption, pairs, attempt, rejected, told, came)
        yield made
        if not came or attempt + 1 == rules.attempts or not (pairs := made.left):
            return
        rejected, told = made.complaint if rules.says_why else ("", "")


def judge(kind: str, caption: str, response: Response, pair: Pair) -> Verdict:
    """What the checks say of a response, for one of the caption's pairs."""
    return validate(kind, caption, response.text, pair.known(kind), finish_reason=response.finish_reason)
