import random
from difflib import SequenceMatcher

from stages.generate.case import Case


def test_edits_are_those_of_difflib() -> None:
    rng, nouns = random.Random(0), ["dog", "cat", "cup", "car", "tree", "boat"]
    compared = 0
    for _ in range(3000):
        before = rng.choices(nouns, k=rng.randint(1, 8)) if rng.random() < 0.5 else rng.sample(nouns, 6)
        after = list(before)
        for _ in range(rng.randint(1, 2)):
            after[rng.randrange(len(after))] = rng.choice([*nouns, "horse", "lamp"])
        codes = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
        wanted = [tuple(places) for code, *places in codes if code != "equal"]
        assert Case(" ".join(before), " ".join(after)).edits == wanted, (before, after)
        compared += bool(wanted)
    assert compared > 2000


def test_what_came_and_went() -> None:
    replaced = Case("A red cup.", "A blue cup.")
    assert [word.lower for word in replaced.lost + replaced.gained] == ["red", "blue"] and not replaced.is_reordered
    moved = Case("A man in a red t-shirt rides a horse.", "A horse rides a man in a red t-shirt.")
    assert moved.is_reordered and moved.lost == moved.gained == []
