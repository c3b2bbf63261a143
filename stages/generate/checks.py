"""Is a response a usable hard negative? Named rules, each a reason slug; the surface is made equal to the caption's.

    validate("swap_nouns", "a dog chases a cat", "A cat chases a dog.", ...) -> accepted, "a cat chases a dog"

A rule is a function `rule(case) -> bool` that is True when it rejects the candidate; its name is the reason slug.
`EVERY` holds for all types, `BY_TYPE` adds what a type promises; what is true of the image promises the opposite. A
type that `BY_TYPE` does not name gets `NEGATIVE`, what every negative promises. Rules of all types stand here, those of
the types in swap_checks.py, replace_checks.py, denial_checks.py and unit_checks.py; what they ask in case.py.
Rules look at words only: a candidate that passes is well-formed, of its type, and (a negative) not known to be true;
nothing here sees the image.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from operator import eq

from pipeline.negative_types import ABSENCE, NEGATION, PARAPHRASE, UNITS
from stages.generate import unit_checks
from stages.generate.case import Case, gist
from stages.generate.denial_checks import (
    already_denied,
    named,
    not_absent,
    not_denied_once,
    not_only_denied,
    nothing_absent,
    word_lost,
)
from stages.generate.grammar import is_worse, loses_article, stop_inside, tears_apart
from stages.generate.paraphrase import is_reordering, lowers
from stages.generate.replace_checks import (
    action_lost,
    elsewhere,
    much_replaced,
    no_adjective_replaced,
    no_noun_replaced,
    nothing_replaced,
    other_quality,
    rearranged,
    still_true,
)
from stages.generate.surface import match_surface
from stages.generate.swap_checks import (
    adjective_lost,
    lost_words,
    no_adjective_moved,
    no_noun_moved,
    nothing_moved,
    noun_lost,
    other_words,
)
from stages.language_models.base import FOREIGN
from stages.text.words import Word, is_known, words_of

NOT_APPLICABLE = "not applicable"

_CHATTER = re.compile(  # of texts in lower case, which is faster than to leave case out of account
    r"^(sure|certainly|of course|okay|ok|here is|here's|here are|note|output|answer|result|negative|caption|assistant|"
    r"user|system|rewritten|original|sorry|i'm sorry|i am sorry|i cannot|i can't|as an ai|unfortunately)"
    r"\b(?=[\s,:!.-]|$)"
    r"|\b(as an ai|language model|i cannot|i can't|cannot be|rewrit\w+|hard negative|the caption|swapp\w+|"
    r"no adjectives?|no nouns?|not possible|n/a)\b"
)
_MARKUP = frozenset("*_#<>[]{}|\\~^=`•→\u2028\u2029")
_SIGNS = frozenset('"“”()!?;:…')
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class Verdict:
    """What became of one response.

    Attributes:
        status: accepted, rejected or not_applicable.
        reason: slug of the rule that rejected it, else None.
        text: the candidate with its surface made equal to the caption's; None when there is none.
    """

    status: str
    reason: str | None
    text: str | None


Rule = Callable[[Case], bool]


def validate(
    kind: str, caption: str, reply: str | None, siblings: Collection[str] = (), *, finish_reason: str | None = "stop"
) -> Verdict:
    """Decide about one response to one caption.

    Args:
        kind: the negative type.
        caption: the true caption.
        reply: what came back, None when the request failed.
        siblings: all captions of the same image.
        finish_reason: why the generator stopped: "length" cut the text, "error" and FOREIGN brought none.
    """
    if finish_reason in ("error", FOREIGN):
        return Verdict("rejected", finish_reason, None)
    reply = (reply or "").strip()
    said = words_of(reply)
    if len(said) == 2 and normal(reply) == NOT_APPLICABLE:
        return Verdict("not_applicable", None, None)
    if finish_reason == "length":
        return Verdict("rejected", "cut", reply or None)
    if not said:
        return Verdict("rejected", "empty", reply or None)
    case = Case(caption, reply, tuple(siblings))
    for rule in RAW:
        if rule(case):
            return Verdict("rejected", rule.__name__, reply)
    if kind == UNITS:
        return _of_units(caption, reply, siblings)
    text = match_surface(caption, reply)
    if text != reply:
        case = Case(caption, text, tuple(siblings))
    for rule in (*EVERY, *BY_TYPE.get(kind, (*NEGATIVE, entailed))):
        if rule(case):
            return Verdict("rejected", rule.__name__, text)
    if gist(text) in map(gist, siblings):
        return Verdict("rejected", "other_caption", text)
    return Verdict("accepted", None, text)


def _of_units(caption: str, reply: str, siblings: Collection[str]) -> Verdict:
    """Accepted with the pairs that pass; rejected for the first fault when none does."""
    kept: list[tuple[str, str]] = []
    wrong: list[str] = []
    for unit, answer in unit_checks.pairs(reply):
        foil = match_surface(unit, answer)
        cases = ((Case(caption, unit), UNIT), (Case(unit, foil, (caption, *siblings)), UNIT_FOIL))
        faults = [rule.__name__ for case, rules in cases for rule in rules if rule(case)]
        wrong += faults
        kept += [] if faults else [(unit, foil)]
    if kept:
        return Verdict("accepted", None, unit_checks.line(kept))
    return Verdict("rejected", (wrong or ["not_units"])[0], reply)


def normal(text: str) -> str:
    """Lower case, words only, single spaces: equal texts differ in nothing a reader would notice."""
    return " ".join(word.lower for word in words_of(text))


# -- rules on the response as it came ----------------------------------------------------------------------------------


def multi_line(case: Case) -> bool:
    """More than one line."""
    return "\n" in case.text or "\r" in case.text


def markup(case: Case) -> bool:
    """Control characters, or markup signs the caption does not have."""
    return (not case.text.isprintable() and bool(_CONTROL.search(case.text))) or not _MARKUP.isdisjoint(case.new_signs)


def chatter(case: Case) -> bool:
    """Talk about the task ("Sure, here is ...", a refusal) that the caption does not have."""
    return bool(_CHATTER.search(case.text.lower())) and not _CHATTER.search(case.caption.lower())


def script(case: Case) -> bool:
    """Letters outside the Latin script in either case, unless the caption has them."""
    return not case.text.isascii() and any(
        letter.isalpha() and ord(letter) > 0x24F for one in case.new_signs for letter in one + one.lower()
    )


# -- rules for every type ----------------------------------------------------------------------------------------------


def identical(case: Case) -> bool:
    """The caption itself, but for case, punctuation, spacing, articles and endings."""
    return gist(case.caption) == gist(case.text) and not case.numbers_exchanged


def length(case: Case) -> bool:
    """Fewer than 0.6 or more than 1.5 times the caption's words (three words are always allowed)."""
    before, after = len(case.before), len(case.after)
    return after < min(0.6 * before, before - 3) or after > max(1.5 * before, before + 3)


def punctuation(case: Case) -> bool:
    """Quotes, brackets, exclamation or question marks, colons that the caption does not have."""
    return not _SIGNS.isdisjoint(case.new_signs)


def language(case: Case) -> bool:
    """Two or more new words, and most of them, are unknown to the lexicon: another language, or no words at all."""
    known = lowers(case.caption)
    if lowers(case.text) <= known:
        return False
    new = [word.lower for word in case.after if word.lower not in known and word.lower[0].isalpha()]
    unknown = [word for word in new if not is_known(word)] if len(new) > 1 else []
    return len(unknown) >= 2 and 2 * len(unknown) > len(new)


def repeated(case: Case) -> bool:
    """The same word twice in a row, or on both sides of "and", where the caption has no such thing."""

    def doubles(words: tuple[Word, ...]) -> int:
        row = [word.lower for word in words]
        unjoined = [word for word in row if word not in ("and", "or")]
        return [*map(eq, row, row[1:]), *map(eq, unjoined, unjoined[1:])].count(True)

    count = doubles(case.after)
    return count > 0 and count > doubles(case.before)


def sentences(case: Case) -> bool:
    """A full stop inside, where the caption has none."""
    return stop_inside(case.caption, case.text)


def grammar(case: Case) -> bool:
    """Two determiners, no agreement in number, an article before a verb, a noun that lost its article or its "'s"."""
    one, other = case.caption, case.text
    return is_worse(one, other) or loses_article(one, other) or tears_apart(one, other)


def entailed(case: Case) -> bool:
    """It says nothing that the caption does not: no new word, count or relation, and nothing in another role."""
    rewrite = case.rewrite
    return not case.is_reordered and not (
        rewrite.more or rewrite.counts_changed or rewrite.relations_changed or rewrite.roles_changed
    )


def same_meaning(case: Case) -> bool:
    """The parts of an "A and B", "A, B and C" or "A next to B" in another order, or a place moved to the front.

    These stay true of the image; see `stages/generate/paraphrase.py`.
    """
    return is_reordering(case.caption, case.text)


# -- rules for paraphrases ---------------------------------------------------------------------------------------------


def less_said(case: Case) -> bool:
    """A thing, quality or action of the caption is missing."""
    return case.rewrite.less


def more_said(case: Case) -> bool:
    """It names a thing, quality or action that the caption does not."""
    return case.rewrite.more


def other_counts(case: Case) -> bool:
    """Numbers, quantifiers or negations differ."""
    return case.rewrite.counts_changed


def other_relations(case: Case) -> bool:
    """Another relation in space."""
    return case.rewrite.relations_changed


def other_roles(case: Case) -> bool:
    """Its things stand in another order, or an adjective describes another of them."""
    return case.rewrite.roles_changed


RAW: tuple[Rule, ...] = (multi_line, markup, chatter, script)
EVERY: tuple[Rule, ...] = (identical, length, punctuation, language, repeated)
NEGATIVE: tuple[Rule, ...] = (sentences, grammar, same_meaning)
SWAP: tuple[Rule, ...] = (*NEGATIVE, other_words, nothing_moved)
REPLACE: tuple[Rule, ...] = (*NEGATIVE, nothing_replaced, rearranged, action_lost, much_replaced, elsewhere)
DENIAL: tuple[Rule, ...] = (already_denied, not_denied_once, rearranged)
UNIT: tuple[Rule, ...] = (already_denied, unit_checks.not_said)
UNIT_FOIL: tuple[Rule, ...] = (*EVERY, *NEGATIVE, still_true, other_quality, entailed, unit_checks.may_hold)
BY_TYPE: dict[str, tuple[Rule, ...]] = {
    "reshuffle_order": (*SWAP, lost_words, entailed),
    "swap_nouns": (*SWAP, no_noun_moved, noun_lost, adjective_lost, entailed),
    "swap_adjectives": (*SWAP, no_adjective_moved, adjective_lost, entailed),
    "replace_nouns": (*REPLACE, no_noun_replaced, still_true, entailed),
    "replace_adjectives": (*REPLACE, no_adjective_replaced, still_true, other_quality, entailed),
    NEGATION: (*NEGATIVE, *DENIAL, not_only_denied),
    PARAPHRASE: (less_said, more_said, other_counts, other_relations, other_roles),
    ABSENCE: (sentences, grammar, *DENIAL, word_lost, nothing_absent, not_absent, named),
}
