"""What `negation` and `absence` promise: one thing is denied, and nothing else said otherwise.

A negation denies what the caption says, so it is false; an absence adds that something else is not there, so it is
true unless the image shows that after all, of which other captions of the image may tell.
"""

from stages.generate.case import Case
from stages.generate.people import is_somebody
from stages.text.words import Word, lexicon, word_set, words_of

_NEGATORS = word_set("no not without never neither nor cannot none nobody nothing nowhere")
_AFFIRMING = word_set("with some any one all")
"""What may go where something is denied, or come with it: "with a hat", "without any hat"."""
_SHOWN = word_set("picture image photo photograph scene sight view anywhere visible present seen")
"""What may be added to say where something is missing: "with no dog in sight"."""


def is_negator(word: Word) -> bool:
    """True for "no", "without", "isn't" and the like."""
    return word.lower in _NEGATORS or word.lower.endswith(("n't", "n’t"))


def denies(case: Case) -> bool:
    """Whether the candidate has a negator, and its caption none."""
    return any(map(is_negator, case.after)) and not any(map(is_negator, case.before))


def already_denied(case: Case) -> bool:
    """The caption denies something itself: a denial more may make it true."""
    return any(map(is_negator, case.before))


def not_denied_once(case: Case) -> bool:
    """No negator, or more than one."""
    return sum(map(is_negator, case.after)) != 1


def not_only_denied(case: Case) -> bool:
    """A word that says something came or went beside the negator; a number may give way to it."""
    return any(word.tag != "CD" for word in _said(case.lost)) or bool(_said(case.gained))


def word_lost(case: Case) -> bool:
    """A word of the caption is missing."""
    return bool(_said(case.lost))


def nothing_absent(case: Case) -> bool:
    """It names no further thing."""
    return not any(word.may_be_noun for word in _absent(case))


def not_absent(case: Case) -> bool:
    """What it names beside the caption's words does not stand right behind the negator, so is not what is denied."""
    places = [i for i, word in enumerate(case.after) if word in _said(case.gained)]
    negator = next(i for i, word in enumerate(case.after) if is_negator(word))
    between = case.after[negator + 1 : places[-1] + 1]
    return places[0] < negator or any(word.is_content and word not in case.gained for word in between)


def named(case: Case) -> bool:
    """What is said to be missing is there by the caption or another one of the image: the word, or one for the same."""
    said = {word.lemma for text in (case.caption, *case.siblings) for word in words_of(text) if word.is_content}
    shows_people = any(map(is_somebody, said))
    return any(
        not said.isdisjoint(lexicon().related(word.lemma) | {word.lemma}) or (shows_people and is_somebody(word.lemma))
        for word in _absent(case)
        if word.may_be_noun
    )


def _said(words: list[Word]) -> list[Word]:
    return [word for word in words if not is_negator(word) and word.lower not in _AFFIRMING]


def _absent(case: Case) -> list[Word]:
    return [word for word in _said(case.gained) if word.lower not in _SHOWN]
