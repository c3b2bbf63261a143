"""What reshuffles and swaps promise: the caption's own words, of which some stand elsewhere."""

from functools import lru_cache
from itertools import pairwise

from stages.generate.case import RELATING, Case, describes, is_action
from stages.text.words import words_of


def lost_words(case: Case) -> bool:
    """A content word of the caption is missing, which no other order of them needs."""
    return bool(case.lost_things)


def other_words(case: Case) -> bool:
    """Not the caption's own words: more than one is lost, or a content word came that is no verb in another's place.

    Grammar words, places and endings may change, words may be said twice for others of their kind, and a verb may
    change where its new subject needs another ("a surfer surfs").
    """
    if not (case.lost or case.gained):
        return False
    own = set(case.stems[0])
    exchanged = len(case.lost) == len(case.gained)
    new = [word for word in case.gained if word.lower not in RELATING]
    new = [word for word in new if not (own.issuperset(word.stems) and (word.is_adjective or exchanged))]
    return len(case.lost_things) > 1 or len(new) > sum(map(is_action, case.lost)) or not all(map(is_action, new))


def nothing_moved(case: Case) -> bool:
    """What both texts share stands in the same order: at most an ending, or some words that came or went."""
    before, after = case.stems
    if case.is_reordered:
        return before == after and not case.numbers_exchanged
    both = set(before) & set(after)
    kept, came = ([stem for stem in stems if stem in both] for stems in (before, after))
    return (_is_within(kept, came) or _is_within(came, kept)) and not case.numbers_exchanged


def no_noun_moved(case: Case) -> bool:
    """No noun changed its place among the other content words, nor what is said of a noun that stands there twice."""
    named = [word.lemma for word in case.before if word.may_be_noun]
    nouns = set(named)
    before, after = ([word.lemma for word in words if word.lemma in nouns] for words in (case.before, case.after))
    if before != after or (len(nouns) < len(named) and not no_adjective_moved(case)):
        return False
    return not any(word.may_be_noun for word in case.moved)


def no_adjective_moved(case: Case) -> bool:
    """No describing word (adjective, number, quantifier, participle, noun before a noun) now describes another word."""
    return _described(case.caption) == _described(case.text)


def noun_lost(case: Case) -> bool:
    """A noun of the caption is nowhere in the candidate: another took its place without making room for it."""
    return any(word.is_noun for word in case.gone)


def adjective_lost(case: Case) -> bool:
    """What describes a noun of the caption is nowhere in the candidate, which no exchange needs."""
    return bool(case.gone) and any(
        word.is_adjective and word in case.gone and following.may_be_noun for word, following in pairwise(case.before)
    )


def _is_within(some: list[str], others: list[str]) -> bool:
    """True when some are among the others, in their order."""
    left = iter(others)
    return all(stem in left for stem in some)


@lru_cache(maxsize=4096)
def _described(text: str) -> list[tuple[str, str]]:
    """(describing word, next noun) pairs in order."""
    words, pairs = words_of(text), []
    for index, word in enumerate(words):
        if not describes(words, index):
            continue
        head = next((other for other in words[index + 1 : index + 4] if other.may_be_noun), None)
        pairs.append((word.lemma, head.lemma if head else ""))
    return pairs
