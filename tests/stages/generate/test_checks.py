import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.negative_types import NEGATIVE_TYPES
from stages.generate.checks import validate

CAPTION = "A brown dog chases a black cat near two red cars and a tree."


def reason(kind: str, caption: str, reply: str | None, *siblings: str, finish: str = "stop") -> str | None:
    verdict = validate(kind, caption, reply, siblings, finish_reason=finish)
    return verdict.reason if verdict.status == "rejected" else verdict.status


@pytest.mark.parametrize("kind", NEGATIVE_TYPES)
@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (None, "empty"),
        ("  ", "empty"),
        ("not applicable", "not_applicable"),
        ("Not applicable.", "not_applicable"),
        (CAPTION, "identical"),
        (CAPTION.upper(), "identical"),
        (CAPTION.replace("A brown", "The brown").rstrip("."), "identical"),
        ("Sure, here is one: " + CAPTION, "chatter"),
        ("I cannot rewrite this caption.", "chatter"),
        ("**A black dog chases a brown cat near two red cars and a tree.**", "markup"),
        ("A black dog chases a brown cat.\nA brown dog.", "multi_line"),
        ("A dog.", "length"),
        (CAPTION[:-1] + " in a very small and very quiet town far away on the other side of it all.", "length"),
        ("Ein brauner Hund jagt eine schwarze Katze an zwei roten Autos und einem Baum vorbei.", "language"),
        ("Коричневая собака гонится за чёрной кошкой.", "script"),
        ("A brown dog dog chases a black cat near two red cars.", "repeated"),
        ('A brown "cat" chases a black dog near two red cars and a tree.', "punctuation"),
    ],
)
def test_what_no_type_accepts(kind: str, reply: str | None, expected: str) -> None:
    assert reason(kind, CAPTION, reply) == expected


@pytest.mark.parametrize(
    ("kind", "caption", "reply", "expected"),
    [
        ("swap_nouns", "A dog chases a cat.", "A cat chases a dog.", "accepted"),
        ("swap_nouns", "A dog chases a cat.", "A cat chases a bird.", "other_words"),
        ("swap_nouns", "A man eating a bun with his tea.", "A man drinking his tea with a bun.", "accepted"),
        ("swap_nouns", "A boy greets a girl and the girl's aunt.", "A girl greets a boy and the boy's aunt.",
         "accepted"),
        ("swap_nouns", "A red lap top on a desk.", "A red desk on a laptop.", "accepted"),
        ("swap_nouns", "A man watches two men.", "Two men watch a man.", "accepted"),
        ("swap_nouns", "A boy and a toddler boy stand by a fountain.", "A toddler boy stands by a fountain.",
         "nothing_moved"),
        ("swap_nouns", "A dog chases a cat.", "A horse chases a bird.", "other_words"),
        ("swap_nouns", "A red dog chases a blue cat.", "A blue dog chases a red cat.", "no_noun_moved"),
        ("swap_nouns", "A dog and a cat.", "A cat and a dog.", "same_meaning"),
        ("swap_nouns", "A dog next to a cat.", "A cat next to a dog.", "same_meaning"),
        ("swap_nouns", "Bread, eggs and milk on a table.", "Milk, bread and eggs on a table.", "same_meaning"),
        ("swap_nouns", "A big dog and a small cat.", "A big cat and a small dog.", "accepted"),
        ("swap_nouns", "a boy holds a woman's hat", "a woman holds a boy's hat", "accepted"),
        ("swap_nouns", "Two men watch a boat.", "A boat watches two men.", "accepted"),
        ("swap_nouns", "A boy flies a kite by a fence.", "A kite flies a boy.", "noun_lost"),
        ("swap_nouns", "A little boy feeds a goat.", "A goat feeds a boy.", "adjective_lost"),
        ("swap_nouns", "A boy sits on a child 's swing .", "A swing sits on a boy ' s child .", "grammar"),
        ("swap_nouns", "A goat in front of a barn near a hill.", "A barn in a hill of front near a goat.", "grammar"),
        ("swap_adjectives", "A red cup and a large spotted jug.", "A large cup and a spotted jug.", "adjective_lost"),
        ("swap_adjectives", "A cat in a black box on a black and white rug.", "A cat in a white box on a black and "
         "black rug.", "repeated"),
        ("swap_adjectives", "A black cat on a white sofa.", "A white cat on a black sofa.", "accepted"),
        ("swap_adjectives", "a small dog under a big dog", "a big dog under a small dog", "accepted"),
        ("swap_adjectives", "A black cat on a sofa.", "A sofa on a black cat.", "no_adjective_moved"),
        ("swap_adjectives", "A black and white cat sits.", "A white and black cat sits.", "same_meaning"),
        ("swap_adjectives", "Three birds and two fish.", "Two birds and three fish.", "accepted"),
        ("swap_adjectives", "A red cup by a green jug.", "A green cup by a red bowl.", "other_words"),
        ("swap_adjectives", "A large cup by a small jug.", "A smaller cup by a larger jug.", "accepted"),
        ("swap_adjectives", "A coin and some rings on a table.", "Some coins and a ring on a table.", "accepted"),
        ("swap_adjectives", "A tan colored dog runs.", "A tan-colored dog runs.", "nothing_moved"),
        ("swap_adjectives", "A black coat and a black hat by a red bag.", "A red coat and a red hat by a black bag.",
         "accepted"),
        ("reshuffle_order", "A dog sleeps on the sofa.", "The sofa sleeps on a dog.", "accepted"),
        ("reshuffle_order", "A dog sleeps on the sofa.", "On the sofa a dog sleeps.", "same_meaning"),
        ("reshuffle_order", "A dog sleeps on the sofa.", "A dog eats a bone in bed.", "other_words"),
        ("reshuffle_order", "Four girls pose at school.", "At school pose four girls.", "same_meaning"),
        ("reshuffle_order", "A man rides a bike on a wet road.", "A wet road a man rides on a bike.", "grammar"),
        ("reshuffle_order", "A wet dog chases a cat.", "A cat chases a dog.", "lost_words"),
        ("reshuffle_order", "Two people sit at a cafe.", "A cafe sit at two people.", "grammar"),
        ("reshuffle_order", "Two people sit at a cafe.", "A cafe sits at two people.", "accepted"),
        ("replace_nouns", "A dog sleeps.", "A cat sleeps.", "accepted"),
        ("replace_nouns", "A dog sleeps.", "An animal sleeps.", "still_true"),
        ("replace_nouns", "A person sleeps.", "A woman sleeps.", "still_true"),
        ("replace_nouns", "A dog sleeps on a sofa.", "A dog sleeps on a couch.", "still_true"),
        ("replace_nouns", "A dog sleeps in the grass.", "A dog sleeps in the garden.", "still_true"),
        ("replace_nouns", "A dog sleeps in the grass.", "A dog sleeps in the street.", "accepted"),
        ("replace_nouns", "A boy in a red coat smiling.", "A boy in a red hat.", "action_lost"),
        ("replace_nouns", "A boy in a red coat smiling.", "A boy in a red hat smiling.", "accepted"),
        ("replace_nouns", "A girl in a hat rides a horse.", "A girl rides a bull in a hat.", "rearranged"),
        ("replace_nouns", "A red dog sleeps on a mat.", "A blue dog sleeps on a mat.", "no_noun_replaced"),
        ("replace_nouns", "A man feeds six goats by the old barn.", "A woman feeds six goats by the old church.",
         "much_replaced"),
        ("replace_nouns", "A man walks his dog.", "A woman walks her dog.", "accepted"),
        ("replace_nouns", "A dog sleeps in the sun.", "A dog sleeps.", "nothing_replaced"),
        ("replace_nouns", "A girl rides a brown horse.", "A girl rides a pony.", "still_true"),
        ("replace_nouns", "Three men load a sled.", "A group of three men load a sled.", "nothing_replaced"),
        ("replace_nouns", "A man turns and smiles.", "A man quietly smiles.", "no_noun_replaced"),
        ("replace_nouns", "A group of men sit.", "A bunch of men sit.", "nothing_replaced"),
        ("replace_nouns", "Two dogs lie on wet grass by a barn.", "Two dogs lie on wet grass by a barn, cats play.",
         "nothing_replaced"),
        ("replace_nouns", "A family plays in a park.", "A couple plays in a park.", "accepted"),
        ("replace_nouns", "An orange and white cat naps on a bed.", "A brown and black dog naps on a bed.", "accepted"),
        ("replace_adjectives", "A red car.", "A blue car.", "accepted"),
        ("replace_adjectives", "A large car.", "A red car.", "other_quality"),
        ("replace_adjectives", "A dark-haired boy.", "A bald boy.", "accepted"),
        ("replace_adjectives", "A girl in a black cap and coat.", "A girl in a black cap and a wet coat.", "elsewhere"),
        ("replace_adjectives", "A black and white dog by a red and white van.",
         "A black and white dog by a red and black van.", "accepted"),
        ("replace_adjectives", "A wood paneled wall.", "A steel paneled wall.", "accepted"),
        ("replace_adjectives", "A big car.", "A large car.", "still_true"),
        ("replace_adjectives", "A large cup by a small jug.", "A large cup by a large jug.", "accepted"),
        ("replace_adjectives", "A spotted dog sleeps.", "A wolf is sleeping.", "no_adjective_replaced"),
        ("replace_adjectives", "Two men sit.", "Four men sit.", "accepted"),
        ("replace_adjectives", "A red car near a house.", "A red car near a lake.", "no_adjective_replaced"),
    ],
)  # fmt: skip
def test_what_each_type_promises(kind: str, caption: str, reply: str, expected: str) -> None:
    assert reason(kind, caption, reply) == expected


SWUNG = "Young boy swinging on a tire swing ."


@pytest.mark.parametrize("kind", NEGATIVE_TYPES)
@pytest.mark.parametrize(
    ("caption", "reply"),
    [
        (SWUNG, "A young boy swings on a tire swing ."),
        (SWUNG, "Young boy swings on a tire swing ."),
        (SWUNG, "A boy swinging on a tire swing ."),
        ("Two dogs playing together on a beach .", "Two dogs play together on a beach ."),
        ("A small black dog lies in tall grass .", "A black dog is lying in the tall grass ."),
        ("A boy in a green shirt watches kayakers .", "A boy in a green shirt watching kayakers ."),
    ],
)
def test_a_caption_inflected_or_cut_short_is_a_negative_of_no_type(kind: str, caption: str, reply: str) -> None:
    assert reason(kind, caption, reply) in ("identical", "nothing_moved", "nothing_replaced")


def test_a_letter_whose_other_case_is_outside_the_latin_script_is_refused_at_once() -> None:
    assert reason("replace_nouns", "0", "\u023e") == "script"


def test_a_failed_or_cut_response_is_rejected_whatever_it_says() -> None:
    assert reason("swap_nouns", "A dog chases a cat.", None, finish="error") == "error"
    assert reason("swap_nouns", "A dog chases a cat.", "A cat chases a", finish="length") == "cut"


def test_another_caption_of_the_image_is_rejected_however_it_is_written() -> None:
    sibling = "the cat chases a dog"
    assert reason("swap_nouns", "A dog chases a cat.", "A cat chases a dog.", sibling) == "other_caption"


def test_words_of_the_task_are_allowed_where_the_caption_has_them() -> None:
    assert reason("swap_nouns", "The caption on a poster shows a dog.", "The dog on a poster shows a caption.") == (
        "accepted"
    )


WORDS = ("a", "an", "the", "red", "dog", "cats", "Paris", ",", ".", "on", "and", "two", "owl's", "3", "é")
words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9)


texts = st.one_of(st.text(max_size=60), words.map(" ".join))


@given(kind=st.sampled_from(NEGATIVE_TYPES), caption=texts.filter(str.strip), reply=texts, sibling=texts)
@settings(max_examples=300, deadline=None)
def test_any_reply_gets_a_verdict_that_holds_together(kind: str, caption: str, reply: str, sibling: str) -> None:
    verdict = validate(kind, caption, reply, [sibling])
    assert verdict.status in ("accepted", "rejected", "not_applicable")
    assert (verdict.reason is not None) == (verdict.status == "rejected")
    if verdict.status == "accepted":
        assert verdict.text and "\n" not in verdict.text
        assert validate(kind, caption, verdict.text, [sibling]) == verdict  # judging what was accepted changes nothing
        assert validate(kind, caption, reply, [sibling, verdict.text]).reason == "other_caption"


@given(kind=st.sampled_from(NEGATIVE_TYPES), caption=texts.filter(str.strip))
@settings(max_examples=200, deadline=None)
def test_no_caption_is_a_negative_of_itself(kind: str, caption: str) -> None:
    assert validate(kind, caption, caption).status != "accepted"


def test_a_type_without_checks_of_its_own_gets_the_general_ones() -> None:
    assert reason("change_count", "Two dogs and a cat.", "Three dogs and a cat.") == "accepted"
    assert reason("change_count", "Two dogs and a cat.", "two dogs and a cat") == "identical"
    assert reason("change_count", "A dog and a cat.", "A cat and a dog.") == "same_meaning"
