import pytest

from stages.text.inflection import lemma, plural, verb_stem
from stages.text.words import lexicon


@pytest.mark.parametrize(
    ("word", "base"),
    [
        ("dogs", "dog"),
        ("boxes", "box"),
        ("cities", "city"),
        ("ties", "tie"),
        ("horses", "horse"),
        ("women", "woman"),
        ("boy's", "boy"),
        ("children’s", "child"),
        ("glass", "glass"),
        ("bus", "bus"),
        ("buses", "bus"),
        ("pants", "pants"),
        ("gas", "gas"),
        ("is", "be"),
        ("has", "have"),
        ("rides", "ride"),
    ],
)
def test_the_base_form(word: str, base: str) -> None:
    assert lemma(word) == base


@pytest.mark.parametrize(
    ("noun", "many"),
    [("dog", "dogs"), ("box", "boxes"), ("city", "cities"), ("toy", "toys"), ("woman", "women"), ("mouse", "mice"),
     ("sheep", "sheep"), ("cow", "cows"), ("piano", "pianos")],
)  # fmt: skip
def test_the_plural(noun: str, many: str) -> None:
    assert plural(noun) == many


def test_a_plural_of_the_lexicon_s_things_has_the_thing_as_its_base_form() -> None:
    known = lexicon()
    things = {word for word in known.kind_of if word.isalpha() and lemma(word) == word}
    assert len(things) > 500
    assert sum(lemma(plural(word)) == word for word in things) > 0.97 * len(things)


@pytest.mark.parametrize(
    ("words", "base"),
    [
        (("chases", "chased", "chasing", "chase"), "chas"),
        (("holds", "held", "holding"), "hold"),
        (("carried", "carries"), "carry"),
        (("sitting", "sits", "sat"), "sit"),
        (("dog", "dogs"), "dog"),
    ],
)
def test_the_forms_of_a_verb_have_one_stem(words: tuple[str, ...], base: str) -> None:
    assert {verb_stem(word) for word in words} == {base}
