import pytest

from stages.generate.grammar import is_worse, loses_article, stop_inside, tears_apart


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("A frightened little boy is pulled up by his father.", "A frightened his father is pulled up by little boy."),
        ("A rock climber climbs between two very large rocks.", "Large rocks climb between two very a rock climber."),
        ("A wet and muddy dog shakes off the water.", "A wet and the water shakes off muddy dog."),
        ("A motorcycle driver swerves to the left.", "A motorcycle driver left to the swerves."),
        ("Three girls play in the sand.", "Three sand play in the girls."),
        ("A brown dog walks through the flowers.", "A flowers walk through the brown dog."),
        ("Small children are playing in a pile of leaves.", "A pile are playing in small children of leaves."),
        ("The brown dog walks through the flowers.", "The flowers walks through the brown dog."),
    ],
)
def test_bad_grammar_that_a_swap_brings(caption: str, text: str) -> None:
    assert is_worse(caption, text)
    assert not is_worse(text, text)  # a caption that is no better is no reason


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("A brown dog walks through the flowers.", "The flowers walk through a brown dog."),
        ("Two cups of tea and a glass of juice.", "A cup of tea and two glasses of juice."),
        ("Three men and a dog run.", "A dog and three men run."),
        ("A small red plane flies next to a motorcycle rider.", "A motorcycle rider flies next to a small red plane."),
        ("A black and white cat sits on a red cloth.", "A red cat sits on a black and white cloth."),
    ],
)
def test_good_grammar_is_no_fault(caption: str, text: str) -> None:
    assert not is_worse(caption, text)
    assert not loses_article(caption, text)


def test_a_noun_that_loses_its_article() -> None:
    caption = "A broken hummer is towed on a truck bed."
    assert loses_article(caption, "A truck bed is towed on broken hummer.")
    assert not loses_article(caption, "A truck bed is towed on a broken hummer.")
    assert not loses_article("Dog in snow.", "Snow in dog.")


def test_a_full_stop_inside() -> None:
    assert stop_inside("The snowboarder is sitting down .", "Is sitting down . the snowboarder .")
    assert not stop_inside("The snowboarder is sitting down .", "The seat is snowboarding down .")
    assert not stop_inside("A cup of 1.5 litres.", "A cup of 2.5 litres.")
    assert not stop_inside("A cup. A jug.", "A jug. A cup.")


def test_what_there_is_is_new_and_agrees() -> None:
    assert tears_apart("There is a boat tied to the dock.", "There is the dock tied to a boat.")
    assert tears_apart("There are two cats on a mat.", "There are a mat on two cats.")
    assert not tears_apart("There is a boat near a dock.", "There is a dock near a boat.")
