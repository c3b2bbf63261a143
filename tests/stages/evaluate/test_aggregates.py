"""Aggregates of a scores table: their names, their weights, and what is not compared."""

from typing import Any

import pyarrow as pa
import pytest

from pipeline.schema import SCORES
from stages.benchmarks.valse import PHENOMENA
from stages.evaluate.aggregates import aggregate, definitions


def test_wider_ranks_are_read_from_the_similarities() -> None:
    rows = [
        {"model": "m", "benchmark": "retrieval", "subset": "i2t", "row_id": str(i), "image_key": str(i), "group": None,
         "similarities": [0.5, *([0.9] * better), *([0.1] * (10 - better))], "correct": float(better == 0),
         "tie": False, "leaked": False, "protocol": "p"}
        for i, better in enumerate([0, 1, 4, 5, 9, 10])
    ]  # fmt: skip
    found = aggregate(pa.Table.from_pylist(rows, schema=SCORES))
    values = {name: found[f"retrieval.i2t_{name}"]["m"]["value"] for name in ("r1", "r5", "r10")}
    assert values == pytest.approx({"r1": 1 / 6, "r5": 3 / 6, "r10": 5 / 6})


def test_among_no_more_texts_than_a_rank_every_one_is_within_it() -> None:
    (row,) = rows_of("m", [0.0], "retrieval")
    for others, expected in ((2, [0, 1, 1]), (4, [0, 1, 1]), (5, [0, 0, 1]), (9, [0, 0, 1]), (10, [0, 0, 0])):
        rows = [row | {"subset": "i2t", "similarities": [0.1, *[0.9] * others]}]
        found = aggregate(pa.Table.from_pylist(rows, schema=SCORES))
        assert [found[f"retrieval.i2t_{name}"]["m"]["value"] for name in ("r1", "r5", "r10")] == expected, others


def rows_of(model: str, correct: list[float], benchmark: str = "sugarcrepe") -> list[dict[str, Any]]:
    return [
        {"model": model, "benchmark": benchmark, "subset": "swap_att", "row_id": str(i), "image_key": str(i // 2),
         "group": None, "similarities": [1.0, 0.0], "correct": right, "tie": False, "leaked": False, "protocol": "p"}
        for i, right in enumerate(correct)
    ]  # fmt: skip


def test_rows_that_share_an_image_or_texts_widen_the_interval_and_raise_p() -> None:
    """Twenty rows, of which the second model has sixteen more: alone, of ten images, of five sets of texts."""
    before, after = [0.0] * 18 + [1.0] * 2, [0.0] * 2 + [1.0] * 18
    found = []
    shared: list[dict[str, Any]] = [{}, {"image_key": lambda i: str(i // 2)}, {"texts_key": lambda i: str(i // 4)}]
    for keys in shared:
        rows = [
            row | {"image_key": row["row_id"]} | {name: key(int(row["row_id"])) for name, key in keys.items()}
            for row in [*rows_of("before", before), *rows_of("after", after)]
        ]
        found.append(aggregate(pa.Table.from_pylist(rows, SCORES))["sugarcrepe.swap_att"])
    widths = [one["after"]["high"] - one["after"]["low"] for one in found]
    changes = [one["difference"]["high"] - one["difference"]["low"] for one in found]
    p = [one["difference"]["p"] for one in found]
    assert widths == sorted(widths) and changes == sorted(changes) and p == sorted(p)
    assert len(set(widths)) == len(set(changes)) == len(set(p)) == 3
    assert [(one["pictures"], one["texts"]) for one in found] == [(20, 20), (10, 20), (20, 5)]
    assert p == pytest.approx([2 / 2**16, 2 / 2**8, 2 / 2**5], abs=2e-4), "every cluster that differs may turn"


def turned(benchmark: str, subset: str, images: int) -> list[dict[str, Any]]:
    """Rows that were all wrong and are all right, two of the first image and one of each other."""
    return [
        row | {"subset": subset, "image_key": f"{subset}{max(0, index - 1)}"}
        for model, right in (("before", 0.0), ("after", 1.0))
        for index, row in enumerate(rows_of(model, [right] * (images + 1), benchmark))
    ]


def test_p_is_adjusted_over_the_subsets_of_one_benchmark_and_over_no_mean() -> None:
    images = {"add_att": 5, "add_obj": 6, "swap_att": 7, "swap_obj": 8}
    rows = [row for name, count in images.items() for row in turned("sugarcrepe", name, count)]
    rows += turned("valse", "existence", 5)
    found = aggregate(pa.Table.from_pylist(sorted(rows, key=lambda row: row["model"]), SCORES))
    for name, count in images.items():
        change, p = found[f"sugarcrepe.{name}"]["difference"], 2 / 2**count
        # Holm: the smallest times four, the next times three, and so on.
        larger = sum(other <= count for other in images.values())
        assert change["p"] == pytest.approx(p) and change["p_holm"] == pytest.approx(larger * p)
        assert (change["won"], change["lost"]) == (count + 1, 0)
        assert change["mcnemar_p"] == pytest.approx(p / 2), "McNemar takes every row for itself"
        assert change["detectable"] == pytest.approx(2.8016 * change["error"], rel=1e-3)
    alone = found["valse.existence"]["difference"]
    assert alone["p_holm"] == alone["p"] == pytest.approx(2 / 2**5), "another benchmark is another family"
    assert "p_holm" not in found["sugarcrepe.mean_files"]["difference"]


def test_models_that_change_places_have_the_opposite_difference() -> None:
    better, worse = [1.0] * 18 + [0.0] * 2, [1.0] * 6 + [0.0] * 14
    rose, fell = (
        aggregate(pa.Table.from_pylist([*rows_of("before", one), *rows_of("after", other)], SCORES))
        for one, other in ((worse, better), (better, worse))
    )
    up, down = (found["sugarcrepe.swap_att"]["difference"] for found in (rose, fell))
    assert up["value"] == 0.6 and -0.1 < up["low"] < 0.6 < up["high"] <= 1
    assert (down["value"], down["low"], down["high"]) == (-up["value"], -up["high"], -up["low"])
    assert (down["won"], down["lost"], down["p"]) == (up["lost"], up["won"], up["p"])


def test_of_a_benchmark_without_a_scored_row_there_is_each_subset_and_no_mean() -> None:
    nan = float("nan")
    rows = files("valse", {"existence": [nan], "plurals": [nan]}) + files("sugarcrepe", {"swap_att": [1.0, 0.0]})
    found = aggregate(pa.Table.from_pylist(rows, SCORES))
    assert set(found) == {
        "composition", "sugarcrepe.mean_files", "sugarcrepe.swap_att", "valse.existence", "valse.plurals",
    }  # fmt: skip
    assert found["composition"]["m"]["value"] == 0.5 and found["valse.plurals"]["n"] == 0


def test_only_rows_that_every_model_was_scored_on_count() -> None:
    nan = float("nan")
    rows = [*rows_of("before", [1, 0, nan, 1, 0]), *rows_of("after", [1, 1, 1, nan, 0])]
    found = aggregate(pa.Table.from_pylist(rows, SCORES))["sugarcrepe.swap_att"]
    assert (found["n"], found["of"], found["pictures"]) == (3, 5, 2)
    assert found["before"]["value"] == 0.333333333, "nine digits, so that equal inputs give equal text"
    assert (found["before"]["value"], found["after"]["value"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert found["difference"]["value"] == pytest.approx(1 / 3) and found["difference"]["won"] == 1


def test_leaked_rows_are_left_out_of_the_clean_values_cell_by_cell() -> None:
    rows = [
        row | {"subset": name, "leaked": index in leaked}
        for name, correct, leaked in (("swap_att", [1.0, 1.0, 0.0, 0.0], {0}), ("add_obj", [1.0, 0.0], {1}))
        for index, row in enumerate(rows_of("m", correct))
    ]
    found = aggregate(pa.Table.from_pylist(rows, SCORES))
    assert found["sugarcrepe.mean_files"]["clean"] == {"n": 4, "m": 0.666666667}
    assert found["sugarcrepe.swap_att"]["clean"] == {"n": 3, "m": 0.333333333}
    assert found["sugarcrepe.mean_files"]["m"]["value"] == 0.5 and found["sugarcrepe.mean_files"]["subsets"] == 2


def test_ties_are_counted_and_valued_both_ways() -> None:
    rows = [row | {"tie": index > 1} for index, row in enumerate(rows_of("m", [1, 0, 0, 0]))]
    found = aggregate(pa.Table.from_pylist(rows, SCORES))["sugarcrepe.swap_att"]["m"]
    assert found["ties"] == {"n": 2, "wrong": 0.25, "right": 0.75}


def test_ties_and_text_only_baselines_stand_beside_accuracy_and_beside_no_other_measure() -> None:
    """Which rows were ties and what a baseline answered is known of "correct" alone, not of "at5" nor "original"."""
    for benchmark, accuracy, other in (
        ("retrieval", "i2t_r1", "i2t_r5"),
        ("hard_positives", "i2t", "i2t.original"),
    ):
        rows = [
            row | {"subset": "i2t", "similarities": [0.5, 0.5, *[0.1] * 9], "tie": True}
            for model in ("m", "blind:rule")
            for row in rows_of(model, [0, 1], benchmark)
        ]
        found = aggregate(pa.Table.from_pylist(rows, SCORES))
        assert found[f"{benchmark}.{accuracy}"]["m"]["ties"]["n"] == 2
        assert set(found[f"{benchmark}.{accuracy}"]["blind"]) == {"rule"}
        assert "ties" not in found[f"{benchmark}.{other}"]["m"] and "blind" not in found[f"{benchmark}.{other}"]


def test_models_with_different_rows_are_not_compared() -> None:
    rows = [*rows_of("before", [1, 0, 1, 0]), *rows_of("after", [1, 1, 1, 0])]
    assert aggregate(pa.Table.from_pylist(rows, SCORES))["sugarcrepe.swap_att"]["difference"]["won"] == 1
    with pytest.raises(ValueError, match="^before and after have different rows"):
        aggregate(pa.Table.from_pylist(rows[1:], SCORES))


def test_a_text_only_baseline_stands_beside_the_models_and_one_that_abstains_does_not() -> None:
    rows = [*rows_of("model", [1, 0]), *rows_of("blind:rule", [1, 1]), *rows_of("blind:ngrams", [1, float("nan")])]
    found = aggregate(pa.Table.from_pylist(rows, SCORES))["sugarcrepe.swap_att"]
    assert set(found["blind"]) == {"rule"} and found["blind"]["rule"]["value"] == 1
    assert found["model"]["value"] == 0.5


def test_a_text_only_baseline_is_asked_about_the_rows_that_the_models_were_scored_on() -> None:
    nan = float("nan")
    rows = [
        *rows_of("before", [1, 0, nan, 1]), *rows_of("after", [1, 1, 1, nan]),
        *rows_of("blind:rule", [0, 1, 1, 1]), *rows_of("blind:ngrams", [1, 1, nan, nan]),
    ]  # fmt: skip
    found = aggregate(pa.Table.from_pylist(rows, SCORES))["sugarcrepe.swap_att"]
    assert found["n"] == 2
    assert {judge: one["value"] for judge, one in found["blind"].items()} == {"rule": 0.5, "ngrams": 1}


def test_a_text_only_baseline_that_was_not_asked_a_subset_has_no_figure_for_means_over_it() -> None:
    other = [row | {"subset": "add_obj"} for row in rows_of("model", [1, 0])]
    rows = [*rows_of("model", [1, 0]), *other, *rows_of("blind:rule", [1, 1])]
    found = aggregate(pa.Table.from_pylist(rows, SCORES))
    assert {name for name, one in found.items() if "blind" in one} == {"sugarcrepe.swap_att"}
    assert set(found["sugarcrepe.swap_att"]["blind"]["rule"]) == {"value", "low", "high"}


def test_a_benchmark_that_is_not_in_the_table_has_plain_means() -> None:
    found = aggregate(pa.Table.from_pylist(rows_of("model", [1, 0], "gone"), SCORES))
    assert list(found) == ["gone.mean", "gone.micro", "gone.swap_att"]


def files(benchmark: str, scored: dict[str, list[float]]) -> list[dict[str, Any]]:
    return [row | {"subset": name} for name, correct in scored.items() for row in rows_of("m", correct, benchmark)]


def test_a_mean_over_files_that_were_not_all_scored_goes_by_another_name() -> None:
    nan = float("nan")
    rows = files("valse", {name: [nan, nan] for name in PHENOMENA} | {"existence": [1.0, 1.0], "plurals": [0.0, nan]})
    rows += files("sugarcrepe", {"swap_att": [1.0, 0.0], "swap_obj": [nan], "add_att": [1.0], "add_obj": [1.0]})
    found = aggregate(pa.Table.from_pylist(rows, SCORES))
    means = {name: facts for name, facts in found.items() if not facts["subset"]}
    assert set(means) == {"composition", "valse.mean_files", "sugarcrepe.mean_files", "sugarcrepe.add"}
    assert "2 of 11" in means["valse.mean_files"]["says"] and "3 of 7" in means["sugarcrepe.mean_files"]["says"]
    assert "valse (2)" in means["composition"]["says"] and "sugarcrepe (3)" in means["composition"]["says"]
    assert (means["valse.mean_files"]["n"], means["valse.mean_files"]["of"]) == (3, 22)
    assert means["composition"]["m"]["value"] == pytest.approx((0.5 + 2.5 / 3) / 2), (
        "benchmarks weigh alike all the same"
    )
    unscored = found["valse.relations"]
    assert (unscored["n"], unscored["of"], unscored["m"]["value"]) == (0, 2, None)


def test_a_class_without_an_image_changes_the_rule_and_neither_chance_nor_how_many_there_are() -> None:
    nan, classes = float("nan"), ("cat", "dog", "hen")
    rows = [
        row | {"subset": "pets", "group": label, "row_id": label + row["row_id"]}
        for label, correct in zip(classes, ([1.0, 1.0], [0.0], [nan]), strict=True)
        for row in rows_of("m", correct, "zeroshot")
    ]
    found = aggregate(pa.Table.from_pylist(rows, SCORES))["zeroshot.pets.mean_per_class"]
    assert (found["n"], found["of"], found["m"]["value"], found["chance"]) == (3, 4, 0.5, pytest.approx(1 / 3))
    assert found["says"] == "top-1, mean over 2 classes"


def test_composition_weighs_benchmarks_alike_and_weights_sum_to_one() -> None:
    present = {
        **{("sugarcrepe", name): [] for name in ("add_att", "swap_att", "replace_att")},
        **{("valse", name): [] for name in ("existence", "plurals")},
        ("aro", "vg_relation"): ["above", "below"],
        ("aro", "coco_order"): [],
        ("zeroshot", "circles"): ["red", "blue"],
    }
    made = definitions(present)
    for item in made:
        assert sum(weight for _, weight in item.cells) == pytest.approx(1), item.name
    share: dict[str, float] = {}
    for rows, weight in made[0].cells:
        share[rows[0][0]] = share.get(rows[0][0], 0) + weight
        assert rows[0][1] != "coco_order", "text alone tells it"
    assert made[0].name == "composition" and share == pytest.approx(
        dict.fromkeys(("sugarcrepe", "valse", "aro"), 1 / 3)
    )
    assert len({item.name for item in made}) == len(made)
