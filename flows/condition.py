"""A condition over scores, such as "composition > 70 and zeroshot.change.low > -1", read safely."""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.errors import UserError
from stages.verdicts import Facts, p_value, side_by_side

Values = Mapping[str, float | None]
"""What a name in a condition stands for; None = not scored."""

LONGEST = 1000
"""Of a condition, letters: nested deeper, it would outgrow the interpreter's stack."""
SHOWN = 8
"""Names of scores in an error."""

_COMPARED: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}  # fmt: skip
_SUMS: dict[type[ast.operator], Callable[[float, float], float]] = {ast.Add: operator.add, ast.Sub: operator.sub}


def values(aggregates: Mapping[str, Facts]) -> dict[str, float | None]:
    """What the scores of a run are called in a condition: per cent, changes in points, p as it is.

    `NAME` is the score after fine-tuning; NAME.low and NAME.high its interval; NAME.before; NAME.change with .low and
    .high; NAME.p. A benchmark of the paper stands for its mean.
    """
    named = {**aggregates, **{short: aggregates[name] for short, name in side_by_side(aggregates).items()}}
    found: dict[str, float | None] = {}
    for name, one in named.items():
        sides = {name: one["after"], f"{name}.before": one["before"], f"{name}.change": one["difference"]}
        for side, estimate in sides.items():
            parts = {side: "value", f"{side}.low": "low", f"{side}.high": "high"}
            found |= {part: _percent(estimate[key]) for part, key in parts.items()}
        found[f"{name}.p"] = p_value(one["difference"])
    return found


def holds(condition: str, known: Values) -> tuple[bool, dict[str, float]]:
    """Whether a condition holds, and the values it was decided by.

    It may hold names (in quotes where they are no plain names), numbers, comparisons, `and`, `or`, `not`, + and -.
    Raises UserError for anything else, for an unknown name, and for a score that is not there.
    """
    used: dict[str, float] = {}

    def wrong(what: str, expected: str = "such as 'composition > 70 and zeroshot.change.low > -1'") -> UserError:
        return UserError("promote", what, expected, "--if")

    def truth(node: ast.expr) -> bool:
        match node:
            case ast.BoolOp(op, parts):
                every = [truth(part) for part in parts]  # all of them, so that each name is looked up
                return all(every) if isinstance(op, ast.And) else any(every)
            case ast.UnaryOp(ast.Not(), inner):
                return not truth(inner)
            case ast.Compare(first, signs, others) if all(type(sign) in _COMPARED for sign in signs):
                numbers = [number(one) for one in (first, *others)]
                return all(
                    _COMPARED[type(sign)](left, right)
                    for sign, left, right in zip(signs, numbers, numbers[1:], strict=False)
                )
        raise wrong(f"{ast.unparse(node)!r} is neither true nor false", "comparisons, joined by and, or, not")

    def number(node: ast.expr) -> float:
        match node:
            case ast.Constant(bool()):
                pass
            case ast.Constant(int() | float() as value):
                return float(value)
            case ast.Constant(str() as name):
                return score(name)
            case ast.Name() | ast.Attribute():
                return score(ast.unparse(node))
            case ast.UnaryOp(ast.USub(), inner):
                return -number(inner)
            case ast.BinOp(left, sign, right) if type(sign) in _SUMS:
                return _SUMS[type(sign)](number(left), number(right))
        raise wrong(f"{ast.unparse(node)!r} is no score and no number", "names of scores, numbers, + and -")

    def score(name: str) -> float:
        if name not in known:
            scores = [one for one in known if f"{one}.before" in known][:SHOWN]
            raise wrong(f"there is no score {name!r}", f"one of degla runs --json: {', '.join(scores)}, ...")
        value = known[name]
        if value is None:
            raise wrong(f"{name} was not scored", "a score")
        used[name] = value
        return value

    if len(condition) > LONGEST:
        raise wrong(f"the condition has {len(condition):,} letters", f"at most {LONGEST:,}")
    try:
        parsed = ast.parse(condition.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise wrong(f"{condition!r} cannot be read ({str(error) or type(error).__name__})") from None
    return truth(parsed.body), used


def _percent(share: Any) -> float | None:
    return None if share is None else 100 * float(share)
