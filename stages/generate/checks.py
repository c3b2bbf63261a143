"""Is a response a usable hard negative? Named rules, each a reason slug; the surface is made equal to the caption's.

    validate("swap_nouns", "a dog chases a cat", "A cat chases a dog.", ...) -> accepted, "a cat chases a dog"

A rule is a function `rule(case) -> bool` that is True when it rejects the candidate; its name is the reason slug.
`EVERY` holds for all types, `BY_TYPE` adds what a type promises; a paraphrase promises the opposite of the others. A
type that `BY_TYPE` does not name gets `NEGATIVE`, what every negative promises.
Rules look at words only: a candidate that passes is well-formed, of its type, and (a negative) not known to be true;
nothing here sees the image.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import NamedTuple

from pipeline.negative_types import NEGATIVE_TYPES, PARAPHRASE
from stages.generate.grammar import is_worse, loses_article, stop_inside, tears_apart
from stages.generate.paraphrase import Rewrite, is_reordering
from stages.generate.surface import match_surface
from stages.language_models.base import FOREIGN
from stages.text.inflection import verb_stem
from stages.text.words import ARTICLES, PLACES, QUANTIFIERS, Word, is_known, lexicon, word_set, words_of

NOT_APPLICABLE = "not applicable"
MAX_REPLACED = 4
"""Content words a replace type may change: "an orange and white cat" -> "a brown and black dog" is three."""

NEAR = 2
"""Unchanged words between two changed spans that still count as one place."""

_CHATTER = re.compile(
    r"^(sure|certainly|of course|okay|ok|here is|here's|here are|note|output|answer|result|negative|caption|assistant|"
    r"user|system|rewritten|original|sorry|i'm sorry|i am sorry|i cannot|i can't|as an ai|unfortunately)"
    r"\b(?=[\s,:!.-]|$)"
    r"|\b(as an ai|language model|i cannot|i can't|cannot be|rewrit\w+|hard negative|the caption|swapp\w+|"
    r"no adjectives?|no nouns?|not possible|n/a)\b",
    re.IGNORECASE,
)
_MARKUP = frozenset("*_#<>[]{}|\\~^=`•→\u2028\u2029")
_SIGNS = frozenset('"“”()!?;:…')
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_AGREEMENT = word_set(
    """a an the some this that these those his her hers its it's their theirs him them he she it they himself herself
    itself themselves is are was were be been being has have do does and with of to there who which"""
)
_OPENING = word_set("a an the his her its their")
_NO_LOSS = _AGREEMENT | QUANTIFIERS
_QUANTITIES = QUANTIFIERS - ARTICLES
_SAME_QUANTITY = {"bunch": "group", "lots": "many", "several": "many", "numerous": "many", "pair": "couple"}
_RELATING = PLACES | word_set("next front top alongside off up down as while when")


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


class Edit(NamedTuple):
    """Words a..b of the caption became words c..d of the candidate."""

    a: int
    b: int
    c: int
    d: int

    def old(self, case: "Case") -> tuple[Word, ...]:
        """The words that went."""
        return case.before[self.a : self.b]

    def new(self, case: "Case") -> tuple[Word, ...]:
        """The words that came."""
        return case.after[self.c : self.d]


@dataclass(frozen=True)
class Case:
    """One candidate beside its caption, parsed once for all rules."""

    caption: str
    text: str

    @cached_property
    def before(self) -> tuple[Word, ...]:
        """Words of the caption, punctuation left out."""
        return words_of(self.caption)

    @cached_property
    def after(self) -> tuple[Word, ...]:
        """Words of the candidate, punctuation left out."""
        return words_of(self.text)

    @cached_property
    def new_signs(self) -> frozenset[str]:
        """Characters of the candidate that the caption does not have."""
        return frozenset(self.text).difference(self.caption)

    @cached_property
    def edits(self) -> list[Edit]:
        """Changed spans, compared by base form; agreement and mended spelling left out."""
        one, other = [word.lemma for word in self.before], [word.lemma for word in self.after]
        codes = SequenceMatcher(None, one, other, autojunk=False).get_opcodes()
        spans = [Edit(a, b, c, d) for code, a, b, c, d in codes if code != "equal"]
        return [span for span in spans if not _harmless(span.old(self), span.new(self))]

    @cached_property
    def spots(self) -> list[Edit]:
        """The edits, those at most NEAR words apart made one."""
        spots: list[Edit] = []
        for edit in self.edits:
            if spots and edit.a - spots[-1].b <= NEAR:
                edit = Edit(spots[-1].a, edit.b, spots.pop().c, edit.d)
            spots.append(edit)
        return spots

    @cached_property
    def rewrite(self) -> Rewrite:
        """The candidate as another way to say the caption, for the rules for paraphrases."""
        return Rewrite(self.caption, self.text)

    @cached_property
    def stems(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Stems of the caption's words that say something, and of the candidate's."""
        return _stems(self.caption), _stems(self.text)

    @cached_property
    def _exchanged(self) -> tuple[list[Word], list[Word]]:
        before, after = self.stems
        return _mended(_missing(self.before, after), _missing(self.after, before))

    @property
    def lost(self) -> list[Word]:
        """Content words of the caption that the candidate lacks, compared by stem."""
        return self._exchanged[0]

    @property
    def gained(self) -> list[Word]:
        """Content words of the candidate that the caption lacks, compared by stem."""
        return self._exchanged[1]


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
    case = Case(caption, reply)
    for rule in RAW:
        if rule(case):
            return Verdict("rejected", rule.__name__, reply)
    text = match_surface(caption, reply)
    if text != reply:
        case = Case(caption, text)
    for rule in (*EVERY, *BY_TYPE.get(kind, (*NEGATIVE, entailed))):
        if rule(case):
            return Verdict("rejected", rule.__name__, text)
    if _gist(text) in map(_gist, siblings):
        return Verdict("rejected", "other_caption", text)
    return Verdict("accepted", None, text)


def normal(text: str) -> str:
    """Lower case, words only, single spaces: equal texts differ in nothing a reader would notice."""
    return " ".join(word.lower for word in words_of(text))


# -- rules on the response as it came ----------------------------------------------------------------------------------


def multi_line(case: Case) -> bool:
    """More than one line."""
    return "\n" in case.text or "\r" in case.text


def markup(case: Case) -> bool:
    """Control characters, or markup signs the caption does not have."""
    return bool(_CONTROL.search(case.text)) or not _MARKUP.isdisjoint(case.new_signs)


def chatter(case: Case) -> bool:
    """Talk about the task ("Sure, here is ...", a refusal) that the caption does not have."""
    return bool(_CHATTER.search(case.text)) and not _CHATTER.search(case.caption)


def script(case: Case) -> bool:
    """Letters outside the Latin script in either case, unless the caption has them."""
    return any(letter.isalpha() and ord(letter) > 0x24F for one in case.new_signs for letter in one + one.lower())


# -- rules for every type ----------------------------------------------------------------------------------------------


def identical(case: Case) -> bool:
    """The caption itself, but for case, punctuation, spacing, articles and endings."""
    return _gist(case.caption) == _gist(case.text) and not _numbers_exchanged(case)


def length(case: Case) -> bool:
    """Fewer than 0.6 or more than 1.5 times the caption's words (three words are always allowed)."""
    before, after = len(case.before), len(case.after)
    return after < min(0.6 * before, before - 3) or after > max(1.5 * before, before + 3)


def punctuation(case: Case) -> bool:
    """Quotes, brackets, exclamation or question marks, colons that the caption does not have."""
    return not _SIGNS.isdisjoint(case.new_signs)


def language(case: Case) -> bool:
    """Two or more new words, and most of them, are unknown to the lexicon: another language, or no words at all."""
    known = {word.lower for word in case.before}
    new = [word.lower for word in case.after if word.lower not in known and word.lower[0].isalpha()]
    unknown = [word for word in new if not is_known(word)]
    return len(unknown) >= 2 and 2 * len(unknown) > len(new)


def repeated(case: Case) -> bool:
    """The same word twice in a row, or on both sides of "and", where the caption has no such thing."""

    def doubles(words: tuple[Word, ...]) -> int:
        rows = (words, [word for word in words if word.lower not in ("and", "or")])
        return sum(one.lower == two.lower for row in rows for one, two in pairwise(row))

    count = doubles(case.after)
    return count > 0 and count > doubles(case.before)


def sentences(case: Case) -> bool:
    """A full stop inside, where the caption has none."""
    return stop_inside(case.caption, case.text)


def grammar(case: Case) -> bool:
    """Two determiners, no agreement in number, an article before a verb, a noun that lost its article or its "'s"."""
    return any(fault(case.caption, case.text) for fault in (is_worse, loses_article, tears_apart))


def entailed(case: Case) -> bool:
    """It says nothing that the caption does not: no new word, count or relation, and nothing in another role."""
    rewrite, (before, after) = case.rewrite, case.stems
    return sorted(before) != sorted(after) and not (
        rewrite.more or rewrite.counts_changed or rewrite.relations_changed or rewrite.roles_changed
    )


def same_meaning(case: Case) -> bool:
    """The parts of an "A and B", "A, B and C" or "A next to B" in another order, or a place moved to the front.

    These stay true of the image; see `stages/generate/paraphrase.py`.
    """
    return is_reordering(case.caption, case.text)


# -- rules for reshuffle and swaps -------------------------------------------------------------------------------------


def lost_words(case: Case) -> bool:
    """A content word of the caption is missing, which no other order of them needs."""
    return bool(_lost(case))


def other_words(case: Case) -> bool:
    """Not the caption's own words: more than one is lost, or a content word came that is no verb in another's place.

    Grammar words, places and endings may change, words may be said twice for others of their kind, and a verb may
    change where its new subject needs another ("a surfer surfs").
    """
    own = set(case.stems[0])
    exchanged = len(case.lost) == len(case.gained)
    new = [word for word in case.gained if word.lower not in _RELATING]
    new = [word for word in new if not (own.issuperset(word.stems) and (word.is_adjective or exchanged))]
    return len(_lost(case)) > 1 or len(new) > sum(map(_is_action, case.lost)) or not all(map(_is_action, new))


def nothing_moved(case: Case) -> bool:
    """What both texts share stands in the same order: at most an ending, or some words that came or went."""
    before, after = case.stems
    both = set(before) & set(after)
    kept, came = ([stem for stem in stems if stem in both] for stems in (before, after))
    return (_is_within(kept, came) or _is_within(came, kept)) and not _numbers_exchanged(case)


def no_noun_moved(case: Case) -> bool:
    """No noun changed its place among the other content words, nor what is said of a noun that stands there twice."""
    nouns = Counter(word.lemma for word in case.before if word.may_be_noun)
    before, after = ([word.lemma for word in words if nouns[word.lemma]] for words in (case.before, case.after))
    twice = any(count > 1 for count in nouns.values()) and not no_adjective_moved(case)
    return before == after and not twice and not any(word.may_be_noun for word in _moved(case))


def no_adjective_moved(case: Case) -> bool:
    """No describing word (adjective, number, quantifier, participle, noun before a noun) now describes another word."""
    return _described(case.before) == _described(case.after)


def noun_lost(case: Case) -> bool:
    """A noun of the caption is nowhere in the candidate: another took its place without making room for it."""
    return any(word.is_noun for word in _gone(case))


def adjective_lost(case: Case) -> bool:
    """What describes a noun of the caption is nowhere in the candidate, which no exchange needs."""
    gone = _gone(case)
    return any(
        word.is_adjective and word in gone and following.may_be_noun for word, following in pairwise(case.before)
    )


# -- rules for the replace types ---------------------------------------------------------------------------------------


def nothing_replaced(case: Case) -> bool:
    """No word was put in place of another: an ending, a word that went, a word that came, "a group of" before three."""
    lost, gained = _requantified(case)
    put = case.gained and (len(case.gained) == 1 or case.lost or lost)
    recounted = gained and (lost or _lost(case))
    if put or recounted or len(case.after) < len(case.before):
        return not (put or recounted)
    return not case.rewrite.relations_changed


def rearranged(case: Case) -> bool:
    """What both texts say equally often stands in another order: something moved as well."""
    before, after = map(Counter, case.stems)
    kept, came = ([stem for stem in stems if before[stem] == after[stem]] for stems in case.stems)
    return kept != came


def action_lost(case: Case) -> bool:
    """A participle that says what someone does ("... smiling") went, and no other came."""

    def is_action(words: tuple[Word, ...], index: int) -> bool:
        word, following = words[index], words[index + 1] if index + 1 < len(words) else None
        return word.lower.endswith("ing") and not word.is_noun and not (following and following.may_be_noun)

    lost = [word for index, word in enumerate(case.before) if word in case.lost and is_action(case.before, index)]
    return len(lost) > sum(map(_is_action, case.gained))


def elsewhere(case: Case) -> bool:
    """What came stands in no place from which anything went: it was added, or two places changed."""

    def is_in(words: tuple[Word, ...], some: list[Word]) -> bool:
        return any(word in some or word.lower in _QUANTITIES for word in words)

    return not any(is_in(spot.old(case), case.lost) and is_in(spot.new(case), case.gained) for spot in case.spots)


def much_replaced(case: Case) -> bool:
    """More than one place changed (unless alike), over MAX_REPLACED content words, or over half the caption."""
    changes = {(_lemmas(spot.old(case)), _lemmas(spot.new(case))) for spot in case.spots}
    touched = sum(spot.b - spot.a for spot in case.spots)
    return (
        len(changes) > 1
        or max(len(case.lost), len(case.gained)) > MAX_REPLACED
        or touched > max(3, len(case.before) / 2)
    )


def no_noun_replaced(case: Case) -> bool:
    """No noun is new, neither where words were replaced nor elsewhere, nor any word of quantity ("a couple")."""
    nouns = any(word.may_be_noun for spot in case.spots for word in spot.old(case) + spot.new(case))
    return not nouns or not (any(word.may_be_noun for word in case.gained) or any(_requantified(case)))


def no_adjective_replaced(case: Case) -> bool:
    """No new word describes anything (adjective, number, participle, noun before a noun), or none such was replaced."""
    quantity = all(_requantified(case))
    new = any(word in case.gained and _describes(case.after, i) for i, word in enumerate(case.after))
    return not (new or quantity) or not any(
        _describes(words, i)
        for spot in case.spots
        for words, start, stop in ((case.before, spot.a, spot.b), (case.after, spot.c, spot.d))
        for i in range(start, stop)
    )


def still_true(case: Case) -> bool:
    """Each new content word is a synonym of a word it replaced, wider, or one of a vague word's own."""
    known = lexicon()
    return 0 < len(case.gained) <= len(case.lost) and all(
        any(known.stays_true(old.lemma, new.lemma) for old in case.lost) for new in case.gained
    )


def other_quality(case: Case) -> bool:
    """Each new word tells a quality of another sort than any that went, so both may be true: "red" for "large"."""
    known = lexicon()
    return bool(case.gained and case.lost) and all(
        known.may_both_hold(old.lower, new.lower) for new in case.gained for old in case.lost
    )


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
BY_TYPE: dict[str, tuple[Rule, ...]] = {
    "reshuffle_order": (*SWAP, lost_words, entailed),
    "swap_nouns": (*SWAP, no_noun_moved, noun_lost, adjective_lost, entailed),
    "swap_adjectives": (*SWAP, no_adjective_moved, adjective_lost, entailed),
    "replace_nouns": (*REPLACE, no_noun_replaced, still_true, entailed),
    "replace_adjectives": (*REPLACE, no_adjective_replaced, still_true, other_quality, entailed),
    PARAPHRASE: (less_said, more_said, other_counts, other_relations, other_roles),
}


# -- the type of a ready-made negative ---------------------------------------------------------------------------------


class Change(NamedTuple):
    """What negatives of one type do to their caption, for telling the type of one that came without.

    Attributes:
        adds: they bring content words that the caption lacks; else they move its own.
        words: what the words that came or moved have in common; None when they may be any.
    """

    adds: bool
    words: Callable[[Word], bool] | None = None


def _is_describing(word: Word) -> bool:
    return word.is_adjective or word.tag == "CD"


CHANGES: dict[str, Change] = {
    "reshuffle_order": Change(adds=False),
    "swap_nouns": Change(adds=False, words=lambda word: word.is_noun),
    "swap_adjectives": Change(adds=False, words=_is_describing),
    "replace_nouns": Change(adds=True),
    "replace_adjectives": Change(adds=True, words=_is_describing),
}


def likely_types(caption: str, text: str) -> list[str]:
    """The negative types a ready-made negative may be of, the likeliest first; those nothing is known of come last."""
    case = Case(caption, text)
    words = case.gained or _moved(case)
    types = [kind for kind in NEGATIVE_TYPES if kind in CHANGES and CHANGES[kind].adds == bool(case.gained)]

    def is_told(kind: str) -> bool:
        condition = CHANGES[kind].words
        return condition is not None and all(map(condition, words))

    first = [kind for kind in types if is_told(kind)][:1]
    others = [kind for kind in types if kind not in first]
    return [*first, *others, *(kind for kind in NEGATIVE_TYPES if kind not in CHANGES)]


# -- helpers -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _gist(text: str) -> tuple[str, ...]:
    return tuple(word.lemma for word in words_of(text) if word.lower not in ARTICLES and word.lemma != "be")


def _missing(words: tuple[Word, ...], stems: tuple[str, ...]) -> list[Word]:
    """Content words without a counterpart among the stems, each of which counts once."""
    left: dict[str, int] = {}
    for stem in stems:
        left[stem] = left.get(stem, 0) + 1
    missing = []
    for word in words:
        if all(map(left.get, word.stems)):
            for stem in word.stems:
                left[stem] -= 1
        elif word.is_content and word.lower not in _NO_LOSS:
            missing.append(word)
    return missing


def _lost(case: Case) -> list[Word]:
    return [word for word in case.lost if word.lower not in _RELATING]


def _mended(lost: list[Word], gained: list[Word]) -> tuple[list[Word], list[Word]]:
    """Both without words that are one but for a blank or a slip: "lap top" and "laptop", "bluebery" and "blueberry"."""
    lost, gained = list(lost), list(gained)
    for some, others in ((lost, gained), (gained, lost)):
        for pair in list(pairwise(some)):
            for word in others:
                if verb_stem(word.lower) == verb_stem("".join(one.lower for one in pair)):
                    some[:] = [one for one in some if one not in pair]
                    others.remove(word)
                    break
    for old in list(lost):
        for new in gained:
            if _harmless((old,), (new,)):
                lost.remove(old)
                gained.remove(new)
                break
    return lost, gained


@lru_cache(maxsize=4096)
def _stems(text: str) -> tuple[str, ...]:
    """Stems of the content words and of those of relation and number."""
    return tuple(stem for word in words_of(text) if word.lower not in _AGREEMENT for stem in word.stems)


def _gone(case: Case) -> list[Word]:
    """Lost words of which nothing is left, however often they stood there."""
    left = set(case.stems[1])
    return [word for word in _lost(case) if left.isdisjoint(word.stems)]


def _requantified(case: Case) -> tuple[Counter[str], Counter[str]]:
    """Words of number and quantity that the candidate lacks, and those that it brings."""
    before, after = _quantities(case.caption), _quantities(case.text)
    return (before - after, after - before) if before or after else (before, after)


@lru_cache(maxsize=4096)
def _quantities(text: str) -> Counter[str]:
    said = (word.lower for word in words_of(text) if word.tag == "CD" or word.lower in _QUANTITIES)
    return Counter(_SAME_QUANTITY.get(word, word) for word in said)


def _numbers_exchanged(case: Case) -> bool:
    """One noun became plural and another singular: "some plants and a horse", "a plant and some horses"."""
    before, after = (
        {word.lemma: word.lower != word.lemma for word in words if word.is_noun} for words in (case.before, case.after)
    )
    changes = {(before[noun], after[noun]) for noun in before.keys() & after.keys()}
    return {(True, False), (False, True)} <= changes


def _is_within(some: list[str], others: list[str]) -> bool:
    """True when some are among the others, in their order."""
    left = iter(others)
    return all(stem in left for stem in some)


def _is_action(word: Word) -> bool:
    return word.tag.startswith("VB") or word.lower.endswith("ing")


def _lemmas(words: tuple[Word, ...]) -> tuple[str, ...]:
    return tuple(word.lemma for word in words if word.lower not in ARTICLES)


def _content(words: tuple[Word, ...]) -> list[str]:
    return [word.lemma for word in words if word.lower not in _AGREEMENT]


def _moved(case: Case) -> list[Word]:
    """Content words on either side of a changed span that are in the other text too: they moved."""
    before, after = _content(case.before), _content(case.after)
    codes = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    moved = {lemma for code, a, b, c, d in codes if code != "equal" for lemma in before[a:b] + after[c:d]}
    both = set(before) & set(after)
    return [word for word in case.before if word.lemma in moved & both]


def _describes(words: tuple[Word, ...], index: int) -> bool:
    """True for an adjective, number, quantifier, participle, and for a noun before a noun, or after an article."""
    word, *others = words[index : index + 3]
    if word.may_modify or not others:
        return word.may_modify
    if index and words[index - 1].lower in _OPENING:
        is_joined = others[0].tag in ("VBN", "VBD", "JJ") and len(others) > 1 and others[1].may_be_noun
        return is_joined or others[0].may_be_noun
    return word.may_be_noun and others[0].may_be_noun and not others[0].tag.startswith("VB")


def _described(words: tuple[Word, ...]) -> list[tuple[str, str]]:
    """(describing word, next noun) pairs in order."""
    pairs = []
    for index, word in enumerate(words):
        if not _describes(words, index):
            continue
        head = next((other for other in words[index + 1 : index + 4] if other.may_be_noun), None)
        pairs.append((word.lemma, head.lemma if head else ""))
    return pairs


def _harmless(old: tuple[Word, ...], new: tuple[Word, ...]) -> bool:
    """Grammar words only ("his" for "her"), or the same letters but for a slip ("lap top", "keybord")."""
    if all(word.lower in _AGREEMENT or word.lower in PLACES for word in old + new):
        return True
    before, after = ("".join(word.lower for word in words) for words in (old, new))
    if before == after:
        return True
    is_slip = len(old) == len(new) == 1 and len(before) > 2 and not is_known(before)
    return is_slip and SequenceMatcher(None, before, after).ratio() >= 0.6
