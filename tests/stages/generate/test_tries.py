import pytest

from stages.generate.shards import Entry, Pair
from stages.generate.tries import _WORDS, Try, TryRules, tries
from stages.language_models.base import Response

CAPTION = "A dog chases a cat."
GOOD = "A cat chases a dog."
RULES = TryRules(width=2, attempts=3, says_why=True)


def entry(*siblings: list[str]) -> Entry:
    return Entry("k", CAPTION, [Pair(f"p{i}", f"i{i}", some, []) for i, some in enumerate(siblings or ([],))])


def made(known: dict[tuple[int, str], str], rules: TryRules = RULES, of: Entry | None = None) -> list[Try]:
    responses = {key: Response(text, "stop") for key, text in known.items()}
    return list(tries("swap_nouns", of or entry(), responses, rules))


def test_a_caption_is_tried_until_a_response_is_not_rejected() -> None:
    (first,) = made({})
    assert (first.attempt, first.told, dict(first.responses)) == (0, "", {})
    (only,) = made({(0, ""): CAPTION, (1, ""): GOOD})
    assert [(one.number, one.verdict.status) for _, some in only.judged for one in some] == [
        (0, "rejected"), (1, "accepted"),
    ]  # fmt: skip
    first, repair = made({(0, ""): CAPTION})
    assert not repair.responses and repair.rejected == CAPTION and "the caption unchanged" in repair.told
    told = repair.told
    *_, last = made({(0, ""): CAPTION, (2, told): "A red dog chases a cat."})
    assert last.attempt == 2 and last.rejected == "A red dog chases a cat." and last.told not in ("", told)
    assert len(made({(0, ""): CAPTION, (2, told): CAPTION, (4, told): CAPTION})) == 3  # no more are allowed
    assert [len(made({(0, ""): CAPTION, (2, was): GOOD})) for was in (told, "else")] == [2, 2]
    assert [dict(made({(0, ""): CAPTION, (2, was): GOOD})[-1].responses) != {} for was in (told, "else")] == [
        True, False,
    ]  # fmt: skip


def test_a_repair_is_for_the_pairs_that_have_nothing_yet() -> None:
    two = entry([], [GOOD])
    first, repair = made({(0, ""): GOOD}, of=two)
    assert [pair.pair_id for pair in repair.pairs] == ["p1"] and "still true" in repair.told
    assert [some[-1].verdict.status for _, some in first.judged] == ["accepted", "rejected"]


@pytest.mark.parametrize("reply", ["", "Two\nlines.", "# A cat", "Коричневая собака"])
def test_what_cannot_be_shown_is_tried_again_without_a_word(reply: str) -> None:
    _, repair = made({(0, ""): reply})
    assert repair.rejected == repair.told == ""


def test_every_reason_of_a_rule_has_words_or_is_no_fault_of_the_content() -> None:
    from stages.generate.checks import BY_TYPE, EVERY

    rules = {rule.__name__ for some in (*BY_TYPE.values(), EVERY) for rule in some}
    assert rules - set(_WORDS) == {"punctuation", "language"}
