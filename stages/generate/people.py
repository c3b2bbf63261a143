"""Who may be whom: a surfer may be a man and a man a rider, but no woman is a groom."""

from stages.text.words import lexicon, word_set

PRONOUNS = word_set("he him his himself she her hers herself")
"""Those that tell the sex of somebody."""

_SEXES = (
    word_set(
        """man boy guy gentleman male lad father dad groom son grandfather grandpa brother husband king prince waiter
        policeman fireman fisherman cowboy businessman"""
    ),
    word_set(
        """woman girl lady female lass mother mom bride daughter grandmother grandma sister wife queen princess waitress
        policewoman businesswoman"""
    ),
)
_GROWN = word_set("man guy gentleman woman lady adult")
_CHILDREN = word_set("child kid baby toddler infant youngster")
_ANYBODY = _GROWN | _CHILDREN | word_set("boy male lad girl female lass person teenager")
"""What people are called whatever they do."""

_VAGUE = word_set(
    """person adult teenager friend couple tourist passenger artist worker student player rider father mother son
    daughter crowd group family team"""
)
"""What somebody may be beside what a caption calls them."""


def is_somebody(name: str) -> bool:
    """True for a base form that names people."""
    return not {"person", "people"}.isdisjoint(lexicon().kinds(name) | {name})


def sex(name: str) -> int | None:
    """0 or 1 for a base form that tells it, else None."""
    return next((number for number, names in enumerate(_SEXES) if name in names), None)


def is_another(old: str, new: str) -> bool:
    """True unless whom a caption calls `old` may be called `new` as well; both are base forms that name people.

    Two occupations count as two people; what anybody may be called contradicts by sex or age alone.
    """
    sexes = sex(old), sex(new)
    if None not in sexes:
        return sexes[0] != sexes[1]
    if old in _CHILDREN:
        return new in _GROWN or new not in _VAGUE | _ANYBODY
    if new in _CHILDREN:
        return old in _GROWN or (new == "baby" and old not in _ANYBODY)
    return new not in _VAGUE and _ANYBODY.isdisjoint((old, new))


def says_less(old: str, new: str) -> bool:
    """True where `new` is what anybody may be called, and `old` what they do: a surfer is a man, most likely."""
    is_doing = is_somebody(old) and sex(old) is None and old not in _ANYBODY | _VAGUE
    return is_doing and new in _ANYBODY - {"baby", "toddler", "infant"}
