import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from stages.text.word_order import PERTURBATIONS, perturb


@given(
    words=st.lists(st.text("abc", min_size=1, max_size=2), max_size=14),
    kind=st.sampled_from(PERTURBATIONS),
    seed=st.integers(0, 99),
    draw=st.data(),
)
def test_each_perturbation_moves_only_its_words(words: list[str], kind: str, seed: int, draw: st.DataObject) -> None:
    content = draw.draw(st.lists(st.booleans(), min_size=len(words), max_size=len(words)))
    foil = perturb(words, content, kind, random.Random(seed))
    assert Counter(foil) == Counter(words)
    triples = [[tuple(text[i : i + 3]) for i in range(0, len(text), 3)] for text in (words, foil)]
    if kind == "within_trigrams":
        assert [sorted(one) for one in triples[0]] == [sorted(one) for one in triples[1]]
    elif kind == "trigrams":
        whole = [tuple(words[i : i + 3]) for i in range(0, len(words), 3)]
        assert any(foil == [w for group in order for w in group] for order in _orders(whole, foil))
    else:
        stays = kind == "all_but_those"
        assert [w for w, c in zip(foil, content, strict=True) if c is stays] == [
            w for w, c in zip(words, content, strict=True) if c is stays
        ]


def _orders(groups: list[tuple[str, ...]], foil: list[str]) -> list[list[tuple[str, ...]]]:
    """The orders of the groups that could read as the foil."""
    if not groups:
        return [[]] if not foil else []
    found = []
    for index, group in enumerate(groups):
        if tuple(foil[: len(group)]) == group:
            rest = _orders(groups[:index] + groups[index + 1 :], foil[len(group) :])
            found += [[group, *order] for order in rest]
    return found
