import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.generate.phrases import Caption, Edit, edited
from stages.generate.rules import PROPOSALS, Task, Vocabulary

SOME = """a an the two several his crocodile's man dogs boy women horse grass snow shirt red young wooden orange very
wearing rides ride is are stands running in on next to and with , . ' " “ of group who café t-shirt 6 A The ü"""
WORDS = st.sampled_from(SOME.split())
CAPTIONS = st.lists(WORDS, min_size=1, max_size=14).flatmap(
    lambda words: st.lists(st.sampled_from([" ", " ", "  ", ""]), min_size=len(words), max_size=len(words)).map(
        lambda gaps: "".join(word + gap for word, gap in zip(words, gaps, strict=True))
    )
)
VOCABULARY = Vocabulary.of(["A dog chases a cat near a house .", "Two boys kick the ball over the grass ."])


@settings(max_examples=150, deadline=None)
@given(caption=CAPTIONS, kind=st.sampled_from(sorted(PROPOSALS)), seed=st.integers(0, 9))
def test_outside_its_edits_a_proposal_is_the_caption_byte_for_byte(caption: str, kind: str, seed: int) -> None:
    task = Task(Caption(caption), random.Random(seed), frozenset(), VOCABULARY)
    for edits in list(PROPOSALS[kind](task))[:20]:
        text, place, end = edited(caption, edits), 0, 0
        for edit in sorted(edits):
            kept = caption[end : edit.start]
            assert text[place : place + len(kept)] == kept
            place, end = place + len(kept) + len(edit.text), edit.stop
        assert text[place:] == caption[end:]


@given(text=st.text(max_size=20), cuts=st.lists(st.integers(0, 20), min_size=4, max_size=4))
def test_edits_are_made_where_they_say_or_refused(text: str, cuts: list[int]) -> None:
    a, b, c, d = sorted(min(cut, len(text)) for cut in cuts)
    assert edited(text, [Edit(c, d, "Y"), Edit(a, b, "X")]) == f"{text[:a]}X{text[b:c]}Y{text[d:]}"
    if a < b:
        with pytest.raises(ValueError, match="overlap"):
            edited(text, [Edit(a, b, ""), Edit(a, b, "")])


@pytest.mark.parametrize(
    ("caption", "phrases"),
    [
        ("A broken down hummer gets towed on a truck bed .", ["a broken down hummer", "a truck bed"]),
        ("The girls walk down the street .", ["the girls", "the street"]),
        ("A dog toys with a cat .", ["a dog", "a cat"]),
        ("People transport large bags .", ["people", "large bags"]),
        ("A black and white dog in front of a crocodile's mouth", ["a black and white dog", "a crocodile's mouth"]),
        ("a group of people in a red raft", ["a group of people", "a red raft"]),
        ("A young man in black at the top", ["a young man"]),
        (
            "A girl rides a unicycle with a child who rides a scooter .",
            ["a girl", "a unicycle", "a child", "a scooter"],
        ),
        ("a person 's hand on a horse", ["a horse"]),
        ("A man in bike riding gear", ["a man"]),
        ("A young child climbs on a rope net .", ["a young child"]),
        ("A man wearing a rainbow colored necklace", ["a man"]),
        ("A man fishing from the shore", ["a man", "the shore"]),
        ("A bathroom vanity sink with a large mirror", ["a large mirror"]),
        ("A firefighter sprays water at a burning warehouse", ["a burning warehouse"]),
        ("The baby, dressed in a striped onesie, crawls toward a cat", ["the baby", "a striped onesie", "a cat"]),
        ("A man is in the ocean waves near a dog", ["a man", "a dog"]),
        ("Modern living room with a gray sofa", ["a gray sofa"]),
        ('A sign that reads "STOP THE BUS" stands at the corner', ["a sign", "the corner"]),
        ("A hand-painted ceramic mug filled with tea", ["a hand-painted ceramic mug", "tea"]),
        ("The player wearing number 23 dribbles near a boy", ["the player", "a boy"]),
        ("A train passes the Golden Gate Bridge near a lake", ["a train", "a lake"]),
        ("A glove floats inside the space station's kitchen.", ["a glove"]),
        ("A closeup of a cat in a photo", ["a cat"]),
    ],
)
def test_noun_phrases_end_where_their_verb_begins(caption: str, phrases: list[str]) -> None:
    found = Caption(caption)
    assert [found.piece(phrase.place) for phrase in found.phrases] == phrases


def test_an_adjective_that_is_half_of_a_name_or_of_a_participle_is_none() -> None:
    found = Caption("A polar bear and an old fashioned train on a stone paved road near a red remote control")
    assert [found.words[i].text for i, _ in found.adjectives()] == ["red"]
    assert [found.piece(phrase.noun) for phrase in found.phrases] == ["polar bear", "train", "road", "remote control"]


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("A man in a hat is riding two horses .", "Two horses in a hat are riding a man ."),
        ("The brown dog walks through the flowers .", "The flowers walk through the brown dog ."),
        ("Two dogs watch an old man .", "An old man watches two dogs ."),
        ("A man and a boy are near the cars", None),
        ("The dogs who are on a hill .", "A hill who is on the dogs ."),
    ],
)
def test_verbs_agree_with_what_stands_before_them_now_or_nothing_is_proposed(caption: str, text: str | None) -> None:
    found = Caption(caption)
    first, last = found.phrases[0], found.phrases[-1]
    edits = found.dealt((first.place, last.place), (1, 0))
    assert (edits and edited(caption, edits)) == text


def test_an_article_goes_with_its_new_neighbour_and_capitals_stay_where_they_are() -> None:
    caption = Caption("An old dog bites a young crocodile 's tail .")
    old, young = (i for i, word in enumerate(caption.words) if word.lower in ("old", "young"))
    edits = caption.dealt(((old, old + 1), (young, young + 1)), (1, 0))
    assert edits is not None and edited(caption.text, edits) == "A young dog bites an old crocodile 's tail ."
