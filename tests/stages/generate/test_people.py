import pytest

from stages.generate.people import is_another, says_less


@pytest.mark.parametrize(
    ("old", "new", "another"),
    [
        ("man", "woman", True),
        ("bride", "waiter", True),
        ("child", "man", True),
        ("woman", "baby", True),
        ("chef", "pilot", True),
        ("surfer", "man", False),
        ("man", "rider", False),
        ("bride", "woman", False),
        ("boy", "man", False),
        ("boy", "baby", False),
        ("police", "friend", False),
        ("chef", "child", False),
    ],
)
def test_whom_a_caption_may_call_otherwise_as_well(old: str, new: str, another: bool) -> None:
    assert is_another(old, new) is another


def test_what_anybody_may_be_called_says_less_than_an_occupation() -> None:
    assert says_less("surfer", "man") and says_less("chef", "person")
    assert not any(says_less(*pair) for pair in (("man", "surfer"), ("boy", "man"), ("dog", "man"), ("chef", "baby")))
