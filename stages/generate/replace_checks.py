"""What the replace types promise: in one place a word for another, which cannot be true as well."""

from stages.generate.case import QUANTITIES, Case, describes, is_action
from stages.generate.people import says_less
from stages.text.words import ARTICLES, Word, lexicon

MAX_REPLACED = 4
"""Content words a replace type may change: "an orange and white cat" -> "a brown and black dog" is three."""


def nothing_replaced(case: Case) -> bool:
    """No word was put in place of another: an ending, a word that went, a word that came, "a group of" before three."""
    if case.gained and (len(case.gained) == 1 or case.lost):
        return False
    lost, gained = case.requantified
    put = (case.gained and lost) or (gained and (lost or case.lost_things))
    if put or len(case.after) < len(case.before):
        return not put
    return not case.rewrite.relations_changed


def rearranged(case: Case) -> bool:
    """What both texts say equally often stands in another order: something moved as well."""
    before, after = case.stems
    kept, came = ([stem for stem in stems if before.count(stem) == after.count(stem)] for stems in case.stems)
    return kept != came


def action_lost(case: Case) -> bool:
    """A participle that says what someone does ("... smiling") went, and no other came."""

    def is_done(words: tuple[Word, ...], index: int) -> bool:
        word, following = words[index], words[index + 1] if index + 1 < len(words) else None
        return word.lower.endswith("ing") and not word.is_noun and not (following and following.may_be_noun)

    lost = [word for index, word in enumerate(case.before) if is_done(case.before, index) and word in case.lost]
    return len(lost) > sum(map(is_action, case.gained))


def elsewhere(case: Case) -> bool:
    """What came stands in no place from which anything went: it was added, or two places changed."""

    def is_in(words: tuple[Word, ...], some: list[Word]) -> bool:
        return any(word in some or word.lower in QUANTITIES for word in words)

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
    return not nouns or not (any(word.may_be_noun for word in case.gained) or any(case.requantified))


def no_adjective_replaced(case: Case) -> bool:
    """No new word describes anything (adjective, number, participle, noun before a noun), or none such was replaced."""
    quantity = all(case.requantified)
    new = any(word in case.gained and describes(case.after, i) for i, word in enumerate(case.after))
    return not (new or quantity) or not any(
        describes(words, i)
        for spot in case.spots
        for words, start, stop in ((case.before, spot.a, spot.b), (case.after, spot.c, spot.d))
        for i in range(start, stop)
    )


def still_true(case: Case) -> bool:
    """Each new content word is a synonym of a word it replaced, wider, or one of a vague word's own."""
    known = lexicon()
    return 0 < len(case.gained) <= len(case.lost) and all(
        any(known.stays_true(old.lemma, new.lemma) or says_less(old.lemma, new.lemma) for old in case.lost)
        for new in case.gained
    )


def other_quality(case: Case) -> bool:
    """Each new word tells a quality of another sort than any that went, so both may be true: "red" for "large"."""
    known = lexicon()
    return bool(case.gained and case.lost) and all(
        known.may_both_hold(old.lower, new.lower) for new in case.gained for old in case.lost
    )


def _lemmas(words: tuple[Word, ...]) -> tuple[str, ...]:
    return tuple(word.lemma for word in words if word.lower not in ARTICLES)
