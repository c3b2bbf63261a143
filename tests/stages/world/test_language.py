"""The built-in world's English: captions are true, parse back, and their rewritings are what they say."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.negative_types import NEGATIVE_TYPES
from stages.world.language import (
    PLACES,
    REWRITES,
    WORDINGS,
    Facts,
    Phrase,
    captions,
    content_words,
    holds,
    parse,
    rewrites,
    write,
)
from stages.world.scenes import COLOURS, NARROW, SHAPES, WIDE, Kind, make_scene

quick = settings(max_examples=60, deadline=None)
keys = st.integers(0, 10**9).map(str)


@quick
@given(keys, st.sampled_from((WIDE, NARROW)))
def test_every_caption_parses_back_and_is_true(key: str, concepts) -> None:
    scene = make_scene(key, concepts)
    made = captions(scene, concepts, key, 3)
    assert len(set(made)) == 3
    for caption in made:
        facts = parse(caption)
        assert facts is not None and write(facts) == caption and holds(facts, scene)
        assert caption[0].isupper() and caption.endswith(".") and " a o" not in caption


@quick
@given(keys, st.sampled_from(list(REWRITES)))
def test_rewrites_keep_to_their_kind_and_are_false(key: str, kind: str) -> None:
    # A third thing in the picture can make a rewriting true by accident, so this looks at pictures of two.
    rng = random.Random(key)
    shapes, colours = rng.sample(WIDE.shapes, 2), rng.sample(WIDE.colours, 2)
    textures, sizes = ("plain", "striped"), ("small", "large")
    kinds = [Kind(*fields) for fields in zip(shapes, colours, textures, sizes, strict=True)]
    scene = make_scene(key, WIDE, kinds, "apart")
    # A caption of one of the two may become one of the other, and what is near the middle is on either side.
    told = {one: parse(one) for one in captions(scene, WIDE, key, 12)}
    caption = next(one for one, facts in told.items() if len(facts.phrases) == 2 and not facts.places)
    for facts in rewrites(parse(caption), kind, WIDE):
        text = write(facts)
        assert parse(text) == facts
        lost, gained = content_words(caption) - content_words(text), content_words(text) - content_words(caption)
        if kind.startswith("replace"):
            assert sum(lost.values()) == sum(gained.values()) == 1
        else:
            assert not lost and not gained and text != caption
        assert not holds(facts, scene), (caption, text)


def test_truth_is_judged_by_place_number_and_attribute() -> None:
    kinds = [Kind("star", "red", "striped", "small"), Kind("heart", "blue", "plain", "large")]
    scene = next(
        scene
        for scene in (make_scene(f"pair {i}", WIDE, kinds, "apart") for i in range(99))
        if scene.relations(0, 1) == {"above"}
    )
    truths = {
        "A red star is above a blue heart.": True,
        "Above the blue heart there is a red star.": True,
        "Above the red star there is a blue heart.": False,
        "Below the red star there is a blue heart.": True,
        "a large blue heart has a striped star over it": True,
        "The star is red and the heart is blue.": True,
        "The star is blue and the heart is red.": False,
        "There is exactly one star.": True,
        "There are two stars in the picture.": False,
        "There are no moons.": True,
        "There is no blue heart.": False,
        "A red star and a red star.": False,
        "A plain red star.": False,
        "A red star, a blue heart and a green moon.": False,
        "A red star is to the left of a blue heart.": False,
    }
    assert {text: holds(parse(text), scene) for text in truths} == truths


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "Red star above.",
            "A red blue star.",
            "A red star is above.",
            "not applicable",
            "A dog is above a star.",
        ),
        *("Two star.", "A stars.", "A red star is above a blue heart. Or not.", "There is a star star."),
    ],
)
def test_what_is_not_in_the_language_does_not_parse(text: str) -> None:
    assert parse(text) is None


@quick
@given(st.data())
def test_parse_is_the_inverse_of_write_for_every_wording(data: st.DataObject) -> None:
    wording = data.draw(st.sampled_from([w for w in WORDINGS if w.number == "one"]))
    noun, colour = st.sampled_from(SHAPES), st.sampled_from(list(COLOURS))
    phrases = tuple(
        Phrase(data.draw(st.sampled_from(("a", "the"))), () if wording.predicates else (data.draw(colour),), n)
        for n in data.draw(st.tuples(*[noun] * wording.size))
    )
    relations = tuple(data.draw(st.sampled_from(("above", "to the left of", "in front of"))) for _ in wording.links)
    predicates = tuple(("large", data.draw(colour))[k % 2] for k in range(len(wording.predicates)))
    places = tuple(data.draw(st.sampled_from(tuple(PLACES))) for _ in wording.located)
    facts = Facts(wording, phrases, relations, predicates, places)
    assert parse(write(facts)) == facts


@quick
@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(("a", "the", "red", "star", "stars", "above", "is", ",", "no", "two"))).map(" ".join)
)
def test_parse_never_fails(text: str) -> None:
    facts = parse(text)
    assert facts is None or content_words(write(facts)) == content_words(text)


def test_each_negative_type_has_its_rewriting_and_another_has_none() -> None:
    assert tuple(REWRITES) == NEGATIVE_TYPES, "in the order used everywhere: training text is drawn in it"
    assert rewrites(parse("A red star is above a blue heart."), "swap_verbs", WIDE) == []
