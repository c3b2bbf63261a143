import pytest

from stages.generate.likely_types import likely_types


@pytest.mark.parametrize(
    ("caption", "text", "likeliest"),
    [
        ("A dog chases a cat.", "A cat chases a dog.", "swap_nouns"),
        ("A red dog chases a blue cat.", "A blue dog chases a red cat.", "swap_adjectives"),
        ("A dog sleeps on the sofa.", "Sleeps the sofa a dog on.", "reshuffle_order"),
        ("A dog sleeps.", "A horse sleeps.", "replace_nouns"),
        ("A red car.", "A blue car.", "replace_adjectives"),
    ],
)
def test_the_likeliest_type_of_a_ready_made_negative(caption: str, text: str, likeliest: str) -> None:
    types = likely_types(caption, text)
    assert types[0] == likeliest
    assert {kind.split("_")[0] for kind in types} in ({"replace"}, {"reshuffle", "swap"})
