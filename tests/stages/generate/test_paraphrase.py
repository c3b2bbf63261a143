import json

import pytest

from stages.generate.checks import validate
from tests.paths import real


@pytest.mark.parametrize(
    ("caption", "text", "reason"),
    [
        ("A dog chases a cat across the yard.", "A cat is chased by a dog across the yard.", None),
        ("A dog chases a cat across the yard.", "A cat chases a dog across the yard.", "other_roles"),
        ("In the park, two men play chess.", "Two men play chess in the park.", None),
        ("In the park, two men play chess.", "Three men play chess in the park.", "other_counts"),
        ("A man rides a bicycle.", "A guy rides a bike.", None),
        ("A man rides a bicycle.", "A man rides a horse.", "less_said"),
        ("A man rides a bicycle.", "A man rides a bicycle downhill.", "more_said"),
        ("A cup on a table.", "A cup under a table.", "other_relations"),
        ("A kid stands near the gate.", "A child stands by the gate.", None),
        ("A red cup and a blue jug.", "A blue cup and a red jug.", "other_roles"),
        ("A red cup and a blue jug.", "A blue jug and a red cup.", None),
        ("She holds a cup.", "He holds a cup.", "less_said"),
    ],
)
def test_a_paraphrase_says_neither_less_nor_more(caption: str, text: str, reason: str | None) -> None:
    assert validate("paraphrase", caption, text).reason == reason


def test_no_true_negative_passes_as_a_paraphrase() -> None:
    for path in real("benchmarks/sugarcrepe").glob("*.json"):
        rows = json.loads(path.read_text()).values()
        passed = [validate("paraphrase", row["caption"], row["negative_caption"]).status for row in rows]
        assert passed.count("accepted") <= 0.05 * len(passed), path.stem
