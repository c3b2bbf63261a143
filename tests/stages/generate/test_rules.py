import pytest

from pipeline.negative_types import NEGATIVE_TYPES
from stages.generate.checks import validate
from stages.generate.rules import Rules, Vocabulary
from stages.language_models.base import Request
from stages.text.words import lexicon, parse

CAPTIONS = [
    "A brown dog chases a black cat near a small house .",
    "Two young boys kick a red ball over the green grass .",
    "a woman in a yellow coat walks past three parked cars",
    "A man rides a white horse along the sandy beach.",
    "An old man reads a newspaper on a wooden bench.",
    "A small girl with curly hair eats a large apple in the kitchen.",
    "Several people watch a blue boat on the calm river.",
    "Snow falls.",
]


@pytest.fixture(scope="module")
def rules() -> Rules:
    return Rules(Vocabulary.of(CAPTIONS))


def answer(rules: Rules, kind: str, caption: str, seed: int = 1, avoid: tuple[str, ...] = ()) -> str:
    response = rules.respond(kind, [], [Request(caption, 0, seed, 99, avoid)], lambda count: None)[0]
    assert response.text is not None
    return response.text


@pytest.mark.parametrize("kind", NEGATIVE_TYPES)
def test_every_rewrite_passes_the_checks_and_depends_on_the_seed_alone(rules: Rules, kind: str) -> None:
    answers = [answer(rules, kind, caption) for caption in CAPTIONS]
    assert answers == [answer(Rules(Vocabulary.of(CAPTIONS)), kind, caption) for caption in CAPTIONS]
    made = [(caption, text) for caption, text in zip(CAPTIONS, answers, strict=True) if text != "not applicable"]
    assert len(made) >= 3
    for caption, text in made:
        assert validate(kind, caption, text).status == "accepted"
    assert any(answer(rules, kind, caption, seed) != text for caption, text in made for seed in range(2, 6))


@pytest.mark.parametrize("kind", ("swap_nouns", "swap_adjectives"))
def test_nothing_to_swap_is_not_applicable(rules: Rules, kind: str) -> None:
    assert answer(rules, kind, "Snow falls.") == "not applicable"


def test_a_replacement_is_never_a_word_of_the_picture_s_other_captions(rules: Rules) -> None:
    avoid = ("A cat, a horse, a girl, a woman and a kid stand by a boat.",)
    for seed in range(30):
        text = answer(rules, "replace_nouns", "A dog sleeps near a man.", seed, avoid)
        new = {word.lemma for word in parse(text)} - {word.lemma for word in parse("A dog sleeps near a man.")}
        assert not new & {"cat", "horse", "girl", "woman", "kid", "child", "boat"}, text


def test_a_replacement_never_stays_true(rules: Rules) -> None:
    known = lexicon()
    for seed in range(30):
        text = answer(rules, "replace_adjectives", "A large dog.", seed)
        new = [word.lemma for word in parse(text) if word.lower not in ("a", "an", "dog", ".")]
        assert len(new) == 1 and not known.same_or_wider("large", new[0]), text


def test_plurals_are_replaced_by_plurals(rules: Rules) -> None:
    for seed in range(10):
        text = answer(rules, "replace_nouns", "Two dogs sleep.", seed)
        assert [word.tag for word in parse(text)][1] == "NNS", text


def test_a_type_without_proposals_is_not_written(rules: Rules) -> None:
    assert {answer(rules, "change_count", caption) for caption in CAPTIONS} == {"not applicable"}
