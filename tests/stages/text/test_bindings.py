"""Bindings of captions: exact in the built-in world, whose own parser is the oracle; of photographs, case by case."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.text.bindings import bindings
from stages.world.language import captions, parse
from stages.world.scenes import COLOURS, NARROW, SHAPES, WIDE, make_scene


def test_the_built_in_world_s_bindings_are_found_exactly() -> None:
    """Hundreds of captions: attributes as the world's parser reads them, relations with their subject and object."""
    asked = [
        text
        for concepts in (WIDE, NARROW)
        for key in range(250)
        for text in captions(make_scene(f"bindings/{key}", concepts), concepts, str(key), 2)
        if not parse(text).places  # "at the top" is a place to the world and a thing to a reader of any captions
    ]
    assert len(asked) > 500
    attributes = relations = 0
    for text in asked:
        facts, found = parse(text), bindings(text)
        assert facts is not None
        said = {(word, phrase.noun) for i, phrase in enumerate(facts.phrases) for word in facts.adjectives(i)}
        linked = {(facts.phrases[one].noun, facts.phrases[other].noun) for one, other in facts.wording.links}
        assert (found.attributes, {(one, other) for one, _, other in found.relations}) == (said, linked), text
        attributes, relations = attributes + len(said), relations + len(linked)
    assert attributes > 900 and relations > 200


@pytest.mark.parametrize(
    ("text", "attributes"),
    [
        ("A man in a white shirt rides two brown horses.", "white shirt, brown horse"),
        ("The dogs are black and very large.", "black dog, large dog"),
        ("The star is red, the cross is blue and the ring is plain.", "red star, blue cross, plain ring"),
        ("A black and white cat beside a shelf with a red, wooden box", "black cat, white cat, red box, wooden box"),
        ("A stuffed teddy bear sits on a fried egg.", "stuffed bear, fried egg"),
        ("A large computer monitor and a white lighted bathroom", "large monitor, white bathroom, lighted bathroom"),
        ("A woman eating pizza while riding horses", ""),
        ("Several people, three other cats and a group of dogs", ""),
        ("An old photo of a young sailor", "young sailor"),
        ("", ""),
        ("?! . , and and the of", ""),
    ],
)
def test_attributes_of_photograph_captions(text: str, attributes: str) -> None:
    assert bindings(text).attributes == {tuple(one.split()) for one in attributes.split(", ") if one}


@pytest.mark.parametrize(
    ("text", "relations"),
    [
        ("A man in a white shirt rides a horse on the beach.", "man/in/shirt, man/rid/horse, horse/on/beach"),
        ("A cup is to the left of a plate.", "cup/to left of/plate"),
        ("In front of a house there is a tree.", "tree/in front of/house"),
        ("A house has a tree behind it.", "tree/behind/house"),
        ("A group of men playing a game", "man/play/game"),
        (
            "A man surfing in the ocean with a dog which is on a board",
            "man/surf in/ocean, ocean/with/dog, dog/on/board",
        ),
        ("A ring is above a star and below a moon.", "ring/above/star, ring/below/moon"),
        ("A dog and a cat", ""),
    ],
)
def test_relations_of_photograph_captions(text: str, relations: str) -> None:
    assert bindings(text).relations == {tuple(one.split("/")) for one in relations.split(", ") if one}


colours, shapes = st.sampled_from(sorted(COLOURS)), st.sampled_from(SHAPES)


@settings(max_examples=100, deadline=None)
@given(colours, shapes, colours, shapes)
def test_wording_and_number_do_not_matter_and_who_has_what_does(one: str, a: str, other: str, b: str) -> None:
    """Singular or plural, before the noun or after "is"; exchanged adjectives bind otherwise."""
    said = {(one, a), (other, b)}
    for text in (f"a {one} {a} above a {other} {b}", f"The {a}s are {one} and the {b} is {other}."):
        assert bindings(text).attributes == said
    swapped = bindings(f"a {other} {a} above a {one} {b}").attributes
    assert (swapped == said) == (one == other or a == b)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_read_and_binds_only_its_own_words(text: str) -> None:
    found = bindings(text)
    assert found == bindings(text)
    assert all(attribute and thing for attribute, thing in found.attributes)
