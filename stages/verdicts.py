"""What a change of a score shows: the one rule behind every page, table and card that says so.

A score is up only when three things hold: the interval of its change lies above zero, the p printed beside it is below
0.05, and its whole interval lies above what is reached without pictures on the same rows, by guessing and by the judges
that read only the texts (stages/evaluate/blind.py). Two intervals apart are more than a test of the difference asks
for, so a doubtful case is never called up.

    up        all three hold; down: the change is below zero, by interval and p
    blind     the change is above zero, but the level is reached without pictures
    unjudged  the change is above zero, but no judge without pictures scored these rows, whose texts could decide them
    new       asked what was retained, of a model that started from random weights
    unclear   the interval or p includes no change
    unknown   nothing was scored
"""

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from stages.benchmarks.means import Question
from stages.pages import percent, signed

if TYPE_CHECKING:
    from stages.benchmarks.loaders import About

Word = Literal["up", "down", "blind", "unjudged", "new", "unclear", "unknown"]

Facts = Mapping[str, Any]
"""One aggregate of a scores table, as `stages.evaluate.aggregates.aggregate` gives it."""

LEVEL = 0.05
"""Below it a p counts."""

ANSWERS: dict[Question, tuple[str, ...]] = {
    "composition": ("composition", "heldout.mean"),
    "retention": ("zeroshot.mean", "retrieval.mean_r1"),
}
"""The means that answer a question as a whole; the first that was scored counts."""

PAPER_MEANS = {
    "sugarcrepe": "sugarcrepe.macro7",
    "valse": "valse.mean11",
    "aro": "aro.mean_vg",
    "zeroshot": "zeroshot.mean11",
}
"""The benchmarks of the DeGLA paper in its order, each with the mean over the whole of it, ARO's without word order."""


class Verdict(NamedTuple):
    """What one score shows.

    Attributes:
        word: see the top of this file.
        says: the same as a sentence, with the change and its interval.
    """

    word: Word
    says: str


def answer(question: Question, scored: Container[str]) -> str | None:
    """The mean that answers a question, among those scored; None when there is none."""
    return next((name for name in ANSWERS[question] if name in scored), None)


def side_by_side(aggregates: Mapping[str, Facts]) -> dict[str, str]:
    """The paper's benchmarks that were scored, each with the name of its mean: over the whole of it, or what is there.

    Of a single set it is that set's own score.
    """
    found: dict[str, str] = {}
    for benchmark, whole in PAPER_MEANS.items():
        names = [name for name, one in aggregates.items() if name.partition(".")[0] == benchmark and one["n"]]
        if names:
            found[benchmark] = whole if whole in names else names[0]
    return found


def headline(
    aggregates: Mapping[str, Facts], *, random_start: bool = False, than: str = ""
) -> dict[Question, tuple[str, Verdict]]:
    """Both questions, each with the name of the mean that answers it ("" for none) and what that shows.

    `than`: see `verdict`.
    """
    scored = {name for name, one in aggregates.items() if one["n"]}
    names = {question: answer(question, scored) for question in ANSWERS}
    return {
        question: (name or "", verdict(name, aggregates[name], random_start=random_start, than=than))
        if name
        else ("", Verdict("unknown", "Nothing measures it here."))
        for question, name in names.items()
    }


def sentences(aggregates: Mapping[str, Facts], *, random_start: bool = False, than: str = "") -> list[str]:
    """The headline as a line per question, with the name of the mean where it is not the question's own."""
    found = headline(aggregates, random_start=random_start, than=than)
    return [
        f"{question}{f', {name}' if name not in ('', question) else ''}: {shown.says}"
        for question, (name, shown) in found.items()
    ]


def verdict(name: str, one: Facts, *, random_start: bool = False, than: str = "") -> Verdict:
    """What the change of one score from before to after shows.

    Args:
        name: of the aggregate, such as "sugarcrepe.macro7".
        one: the aggregate, with `difference`.
        random_start: whether the model before had random weights, so that it knew nothing.
        than: what the model before is called when the one after was not trained from it; empty = it was.
    """
    word = _word(name, one, random_start)
    return Verdict(word, _sentence(word, _about(name).question or "composition", one, than))


def p_value(change: Facts) -> float | None:
    """The one p of a change: adjusted over the subsets of its benchmark (Holm) where it is a subset's."""
    p: float | None = change.get("p_holm", change.get("p"))
    return p


def changed(change: Facts) -> bool:
    """Whether interval and p both exclude no change."""
    if change["value"] is None or change["low"] <= 0 <= change["high"]:
        return False
    p = p_value(change)
    return p is None or p < LEVEL


def best_blind(one: Facts) -> Facts | None:
    """What the best judge without pictures reaches on these rows; None when none was scored on all of them."""
    return max(one.get("blind", {}).values(), key=lambda judge: float(judge["value"]), default=None)


def cut(descriptions: Mapping[str, Facts], labels: Mapping[str, str]) -> list[str]:
    """Of which benchmarks a model does not read the texts to their end, a line each."""
    return [
        f"{benchmark}: {count['cut']:,} of {count['of']:,} texts are longer than the "
        f"{one['context_length']} tokens that {label} reads."
        for name, label in labels.items()
        for one in (descriptions[name],)
        for benchmark, count in one.get("cut", {}).items()
    ]


def _about(name: str) -> "About":
    from stages.benchmarks.loaders import about  # the readers of all benchmarks, which a name alone does not need

    return about(name)


def _word(name: str, one: Facts, random_start: bool) -> Word:
    change = one["difference"]
    if change["value"] is None:
        return "unknown"
    if random_start and _about(name).question == "retention":
        return "new"
    if not changed(change):
        return "unclear"
    lower_is_better = one.get("measure") == "brittle"
    if (change["value"] < 0) != lower_is_better:
        return "down"
    if not lower_is_better and any(one["after"]["low"] <= found["high"] for found in _without_pictures(one).values()):
        return "blind"
    subject = _about(name)
    is_open = subject.question == "composition" and subject.text_may_decide
    return "unjudged" if is_open and not one.get("blind") else "up"


def _without_pictures(one: Facts) -> dict[str, Facts]:
    """What is reached without pictures: by the judges that were scored on these rows, and by guessing where known."""
    found = {f"a judge that never sees a picture ({name})": judge for name, judge in one.get("blind", {}).items()}
    chance = one.get("chance")
    return found if chance is None else found | {"guessing": {"value": chance, "low": chance, "high": chance}}


def _sentence(word: Word, question: Question, one: Facts, than: str) -> str:
    if word == "unknown":
        return "Nothing was scored."
    change, after = one["difference"], one["after"]
    points = f"{signed(change['value'])} points (95 % interval {signed(change['low'])} to {signed(change['high'])})"
    if word == "new":
        start = f"{than} has random weights" if than else "Trained from random weights, so there was nothing to retain"
        return f"{start}: {percent(one['before']['value'])} % before, {percent(after['value'])} % after."
    if word == "blind":
        who, judge = max(_without_pictures(one).items(), key=lambda item: float(item[1]["high"]))
        return (
            f"{points}, but {who} reaches {_with_interval(judge)} and the model {_with_interval(after)}: "
            "this does not show understanding of pictures."
        )
    if word == "unjudged":
        return (
            f"{points}, but no judge without pictures was scored on these rows (evaluate.blind): "
            "whether the pictures matter was not looked at."
        )
    best, p = best_blind(one), p_value(change)
    level = f"; a judge that never sees a picture reaches {_with_interval(best)}" if best else ""
    doubt = (
        "the interval includes no change" if change["low"] <= 0 <= change["high"] else f"p {p:.3f}, not below {LEVEL}"
    )
    if question == "composition":
        return {
            "up": f"The model understands composition better than {than or 'before'}: {points}{level}.",
            "down": f"The model understands composition worse than {than or 'before'}: {points}.",
            "unclear": f"No clear {'difference' if than else 'change'} in composition: {points}; {doubt}{level}.",
        }[word]
    if than:
        return {
            "up": f"Better than {than}: {points}.",
            "down": f"Worse than {than}: {points}.",
            "unclear": f"No difference from {than} could be shown: {points}; {doubt}.",
        }[word]
    losses = f" and losses of up to {percent(-change['low'])} points" if change["low"] < 0 <= change["high"] else ""
    return {
        "up": f"Nothing was lost on the whole; the score even went up: {points}.",
        "down": f"Part of what the model knew was forgotten: {points}.",
        "unclear": f"No loss could be shown: {points}; {doubt}{losses}.",
    }[word]


def _with_interval(estimate: Facts) -> str:
    value, low, high = (percent(estimate[key]) for key in ("value", "low", "high"))
    return f"{value} %" if low == high else f"{value} % ({low} to {high})"
