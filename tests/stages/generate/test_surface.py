import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.generate.surface import match_surface

WORDS = ("a", "an", "the", "red", "dog", "cats", "Paris", ",", ".", "on", "and", "two", "owl's", "3", "é")
words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9)


@pytest.mark.parametrize(
    ("caption", "reply", "expected"),
    [
        ("a dog and a hat", "A hat and a dog.", "a hat and a dog"),
        ("A dog and a hat.", "a hat and a dog", "A hat and a dog."),
        ("Dogs chase cats .", "Cats chase Dogs.", "Cats chase dogs ."),
        ("A DOG BITES A MAN", "A man bites a dog.", "A MAN BITES A DOG"),
        ("An owl on a branch", "A owl on an branch", "An owl on a branch"),
        ("An owl eats a mouse", "a mouse eats a owl", "A mouse eats an owl"),
        ("A man in Paris feeds a dog.", "A dog in Paris feeds a man.", "A dog in Paris feeds a man."),
        ("a b", '"b  a"', "b a"),
        ("Two dogs, one cat.", "Two cats , one dog.", "Two cats, one dog."),
        ("A unicorn and an hour", "A hour and an unicorn", "An hour and a unicorn"),
    ],
)
def test_the_surface_becomes_the_caption_s(caption: str, reply: str, expected: str) -> None:
    assert match_surface(caption, reply) == expected


@given(caption=words.map(" ".join), reply=words.map(" ".join))
@settings(max_examples=300, deadline=None)
def test_matching_the_surface_twice_is_matching_it_once(caption: str, reply: str) -> None:
    once = match_surface(caption, reply)
    assert match_surface(caption, once) == once
