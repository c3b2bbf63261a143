"""Decisions of the real scoring on embeddings that are known."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.schema import SCORES
from pipeline.stage import silent
from stages.benchmarks.rows import Row, Subset
from stages.evaluate.aggregates import aggregate
from stages.evaluate.scoring import PIECE, score, score_blind
from tests.stages.evaluate.vectors import Told, images, pairs_of, told

NAN = (float("nan"), float("nan"))


def accuracy(subset: Subset, cosines: list[tuple[float, float]]) -> dict[str, Any]:
    rows = score(Told(told(subset, cosines)), [subset], "model", set())
    return aggregate(pa.Table.from_pylist(rows, schema=SCORES))["sugarcrepe.swap_att"]


@pytest.mark.parametrize(
    ("cosines", "n", "value"),
    [
        ([(0.9, 0.1)] * 4, 4, 1.0),
        ([(0.1, 0.9)] * 4, 4, 0.0),
        ([NAN] * 4, 0, None),
        ([(0.9, 0.1), NAN, (0.2, 0.3), NAN], 2, 0.5),
    ],
    ids=["perfect", "inverted", "nothing", "half"],
)
def test_known_scorers(cosines: list[tuple[float, float]], n: int, value: float | None) -> None:
    found = accuracy(pairs_of(4), cosines)
    assert (found["n"], found["of"], found["model"]["value"]) == (n, 4, value)


def test_swapped_captions_give_one_minus_accuracy_minus_ties() -> None:
    rng = np.random.default_rng(0)
    cosines = [tuple(pair) for pair in rng.choice([0.1, 0.3, 0.5, 0.7], (60, 2)).tolist()]
    there = accuracy(pairs_of(60), cosines)["model"]
    back = accuracy(pairs_of(60), [(false, true) for true, false in cosines])["model"]
    ties = there["ties"]["n"] / 60
    assert ties > 0
    assert back["value"] == pytest.approx(1 - there["value"] - ties)
    assert there["ties"] == {"n": 60 * ties, "wrong": there["value"], "right": pytest.approx(there["value"] + ties)}


def test_the_tie_rule_is_the_benchmarks_own() -> None:
    tied = [(0.5, 0.5)] * 3
    assert accuracy(pairs_of(3), tied)["model"]["value"] == 0
    assert accuracy(pairs_of(3, tie="right"), tied)["model"]["value"] == 1


def test_retrieval_ranks_by_hand() -> None:
    """Three images on a line, two captions of the first: ranks counted by hand; a missing image is no option."""
    p = images(4)
    vectors: dict[Any, list[float]] = {
        p[0]: [1.0, 0.0], p[1]: [0.8, 0.6], p[2]: [0.0, 1.0], p[3]: [float("nan")] * 2,
        "a": [1.0, 0.0], "b": [0.6, 0.8], "c": [0.8, 0.6], "d": [0.0, 1.0],
    }  # fmt: skip
    own = {"a": 0, "b": 0, "c": 1, "d": 3}
    to_text = tuple(
        Row(str(i), str(i), p[i], (), tuple(j for j, t in enumerate(own) if own[t] == i)) for i in (0, 1, 3)
    )
    to_image = tuple(Row(t, t, None, (t,), (i,)) for t, i in own.items())
    prompts = tuple((t,) for t in own)
    rows = score(
        Told(vectors),
        [
            Subset("retrieval", "i2t", "image_to_text", "wrong", "d", to_text, prompts),
            Subset("retrieval", "t2i", "text_to_image", "wrong", "d", to_image, (), tuple(p)),
        ],
        "model",
        set(),
    )
    correct = {(row["subset"], row["row_id"]): row["correct"] for row in rows}
    assert (correct["i2t", "0"], correct["i2t", "1"]) == (1, 1)
    assert np.isnan(correct["i2t", "3"]) and np.isnan(correct["t2i", "d"])
    assert (correct["t2i", "a"], correct["t2i", "b"], correct["t2i", "c"]) == (1, 0, 1)
    (b,) = (row for row in rows if row["row_id"] == "b")
    assert b["similarities"] == pytest.approx([0.6, 0.96, 0.8])  # its own image, then the two others there are


def test_a_missing_image_takes_nothing_from_the_other_right_one_or_the_rows_behind() -> None:
    p = images(3)
    vectors: dict[Any, list[float]] = {p[0]: [float("nan")] * 2, p[1]: [1.0, 0.0], p[2]: [0.0, 1.0], "a": [0.8, 0.6]}
    rows = tuple(Row(str(i), str(i), None, ("a",), right) for i, right in enumerate([(0,), (0, 1), (2,)]))
    found = score(Told(vectors), [Subset("r", "t2i", "text_to_image", "wrong", "d", rows, (), tuple(p))], "m", set())
    assert [row["similarities"] for row in found] == [None, pytest.approx([0.8, 0.6]), pytest.approx([0.6, 0.8])]


def test_a_text_only_baseline_is_asked_of_choices_alone() -> None:
    choices, squares = pairs_of(3), pairs_of(3, rule="square", name="squares")
    preferences = [[1.0, 0.0], [0.0, 1.0], None]
    rows = score_blind(
        "mine", lambda subset: preferences, [squares, choices], {("sugarcrepe", "swap_att", "1")}, silent
    )
    assert {row["model"] for row in rows} == {"blind:mine"} and {row["subset"] for row in rows} == {"swap_att"}
    assert [row["correct"] for row in rows[:2]] == [1, 0] and np.isnan(rows[2]["correct"])
    assert [row["leaked"] for row in rows] == [False, True, False]


def unit(*angles: float) -> dict[str, list[float]]:
    return {"abcdefgh"[i]: [float(np.cos(angle)), float(np.sin(angle))] for i, angle in enumerate(angles)}


def test_each_rule_keeps_its_similarities_in_the_documented_order() -> None:
    angles = (0.1, 0.5, 0.9)
    vectors: dict[Any, list[float]] = {**unit(*angles), **dict(zip(images(2), unit(0.0, 1.2).values(), strict=True))}
    one, other = images(2)
    cases: list[tuple[Any, Row, list[float]]] = [
        ("choice", Row("0", "0", one, ("a", "b", "c")), [0.1, 0.5, 0.9]),
        ("both", Row("0", "0", one, ("a", "b", "c")), [0.1, 0.5, 0.9]),
        ("texts", Row("0", "0", None, ("a", "b", "c")), [0.4, 0.8, 0.4]),
        ("square", Row("0", "0", one, ("a", "b"), others=(other,)), [0.1, 0.5, 1.1, 0.7]),
        ("set", Row("0", "0", one, ("a", "b"), others=(other,)), [0.1, 0.5, 1.1, 0.7]),
        ("image_choice", Row("0", "0", one, ("a",), others=(other,)), [0.1, 1.1]),
    ]
    for rule, row, expected in cases:
        (found,) = score(Told(vectors), [Subset("b", "s", rule, "wrong", "d", (row,))], "m", set())
        assert found["similarities"] == pytest.approx(np.cos(expected), abs=1e-6), rule


def test_a_square_without_its_second_image_is_not_scored() -> None:
    one, other = images(2)
    vectors: dict[Any, list[float]] = {**unit(0.1, 0.5), one: [1.0, 0.0], other: [float("nan")] * 2}
    subset = Subset("b", "s", "square", "wrong", "d", (Row("0", "0", one, ("a", "b"), others=(other,)),))
    (found,) = score(Told(vectors), [subset], "m", set())
    assert found["similarities"] is None and np.isnan(found["correct"])


def test_a_class_is_the_mean_of_its_prompts_and_the_ten_best_wrong_ones_are_kept() -> None:
    """Fourteen classes on a circle, of which the right one has two prompts; the image lies at angle 0."""
    (image,) = images(1)
    angles = [0.3 + 0.1 * i for i in range(13)]
    vectors: dict[Any, list[float]] = {image: [1.0, 0.0], "right": [1.0, 0.0], "too": [0.0, 1.0]}
    vectors |= {f"wrong {i}": [float(np.cos(a)), float(np.sin(a))] for i, a in enumerate(angles)}
    prompts = (*((f"wrong {i}",) for i in range(13)), ("right", "too"))
    subset = Subset("zeroshot", "s", "classify", "wrong", "d", (Row("0", "0", image, (), (13,)),), prompts)
    (found,) = score(Told(vectors), [subset], "m", {("zeroshot", "s", "0")})
    assert found["similarities"] == pytest.approx([0.5**0.5, *np.cos(angles[:10])], abs=1e-6)
    assert (found["correct"], found["leaked"]) == (0, True)


def test_rows_beyond_one_piece_are_scored_alike() -> None:
    count = PIECE + 3
    rng = np.random.default_rng(0)
    cosines = [tuple(pair) for pair in rng.uniform(0, 1, (count, 2)).tolist()]
    subset = pairs_of(count)
    rows = score(Told(told(subset, cosines)), [subset], "m", set())
    assert [row["correct"] for row in rows] == [float(true > false) for true, false in cosines]
    queries = tuple(Row(str(i), str(i), image, (), (i % 2,)) for i, image in enumerate(images(count)))
    classes = Subset("zeroshot", "s", "classify", "wrong", "d", queries, (("a",), ("b",)))
    angle = rng.uniform(0, 1, count)
    vectors: dict[Any, list[float]] = {**unit(0.0, 1.0)}
    vectors |= {ref: [float(np.cos(a)), float(np.sin(a))] for ref, a in zip(images(count), angle, strict=True)}
    found = [row["correct"] for row in score(Told(vectors), [classes], "m", set())]
    assert found == [float((a < 0.5) == (i % 2 == 0)) for i, a in enumerate(angle)]
