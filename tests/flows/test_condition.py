from typing import Any

import pytest

from flows import condition
from pipeline.errors import UserError


def score(value: float | None, before: float = 0.5) -> dict[str, Any]:
    sides = {"after": value, "before": before, "difference": None if value is None else value - before}
    return {side: {"value": one, "low": one, "high": one} for side, one in sides.items()} | {"n": 4}


KNOWN = condition.values(
    {
        "composition": score(0.72),
        "zeroshot.mean11": score(0.8, 0.81),
        "zeroshot.oxford-pets": score(0.9),
        "aro": score(None),
    }
)


@pytest.mark.parametrize(
    ("wanted", "met"),
    [
        ("composition > 70 and zeroshot > 79", True),
        ("composition > 70 and zeroshot > 80.5", False),
        ("composition > 90 or not zeroshot < 79", True),
        ("70 < composition <= 72.5 != 3", True),
        ("zeroshot.change > -2 and composition.change.low > 21", True),
        ("composition.before + 20 < composition - 1", True),
        ("'zeroshot.oxford-pets' > 89", True),
    ],
)
def test_a_condition_is_read_as_it_is_written(wanted: str, met: bool) -> None:
    assert condition.holds(wanted, KNOWN)[0] is met


def test_the_values_that_decided_are_told() -> None:
    _, used = condition.holds("composition > 99 and zeroshot.change > 0", KNOWN)
    assert used == pytest.approx({"composition": 72, "zeroshot.change": -1})


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("composition", "'composition' is neither true nor false"),
        ("composition and zeroshot", "'composition' is neither true nor false"),
        ("composition > True", "'True' is no score and no number"),
        ("compositon > 70", "there is no score 'compositon'; expected one of degla runs --json: composition, "),
        ("aro > 1", "aro was not scored"),
        ("composition >", "cannot be read"),
        ("composition > 7 ** 99", "'7 ** 99' is no score and no number"),
        ("__import__('os').system('true') > 0", "is no score and no number"),
        ("composition.__class__ > 0", "there is no score 'composition.__class__'"),
        ("(lambda: 1)() > 0", "is no score and no number"),
        ("[composition][0] > 0", "is no score and no number"),
        ("composition in (1, 2)", "is neither true nor false"),
        ("(" * 400 + "composition > 1" + ")" * 400, "cannot be read"),
        ("not " * 400 + "composition > 1", "has 1,615 letters"),
        ("composition > 1 # \0", "cannot be read"),
    ],
)
def test_anything_else_is_a_mistake_and_is_not_run(wanted: str, said: str) -> None:
    with pytest.raises(UserError, match="promote: ") as error:
        condition.holds(wanted, KNOWN)
    assert said in str(error.value)
