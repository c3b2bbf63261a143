"""The comparison: means, deviations, who is undominated, what a type gives; all by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from stages.report import comparison


def row(name: str, runs: list[tuple[float, float]], without: str | None = None, group: str = "rivals") -> dict:
    scores = [
        {"seed": seed, "scores": {"composition": up, "zeroshot.mean": across, "sugarcrepe.swap_obj": up / 2}}
        | {"before": {"composition": 0.5, "zeroshot.mean": 0.9, "sugarcrepe.swap_obj": 0.4}}
        | {"subsets": ["sugarcrepe.swap_obj", "zeroshot.mean"], "blind": {}}
        for seed, (up, across) in enumerate(runs, start=1)
    ]
    return {"name": name, "title": name.upper(), "group": group, "without": without, "runs": scores}


FACTS: dict[str, Any] = {
    "description": "by hand",
    "base": "demo",
    "settings": ["train.epochs=2"],
    "seeds": [1, 2],
    "rows": [
        row("negclip", [(0.6, 0.8), (0.62, 0.82)]),
        row("degla", [(0.7, 0.85), (0.74, 0.85)], group="degla"),
        row("clip_ft", [(0.55, 0.9)]),
        row("no_swap_nouns", [(0.6, 0.84), (0.6, 0.86)], "swap_nouns", "types"),
        row("late", []),
    ],
}


def test_means_deviations_and_the_undominated() -> None:
    found = comparison.compare(FACTS)
    by_name = {one["name"]: one for one in found["rows"]}
    assert by_name["degla"]["mean"]["composition"] == pytest.approx(0.72)
    assert by_name["degla"]["sd"]["composition"] == pytest.approx(0.0282842712)
    assert by_name["clip_ft"]["sd"]["composition"] is None
    assert found["pareto"] == ["degla", "clip_ft"]
    assert found["missing"] == ["clip_ft", "late"]
    assert found["types"] == {"swap_nouns": {"sugarcrepe.swap_obj": pytest.approx(0.06)}}


def test_the_page_says_it_all() -> None:
    found = comparison.compare(FACTS)
    page = comparison.markdown(found, "degla run x", "figures")
    assert "| **DEGLA** | 85.0 ± 0.0 | 72.0 ± 2.8 |" in page
    assert "| before training | 90.0 | 50.0 |" in page
    assert "DeGLA minus" not in page and "## Search" not in page and "text-only" not in page
    assert "Not yet trained with every seed: clip_ft, late." in page
    assert "](figures/pareto.svg)" in page and "](figures/types.svg)" in page
    drawn = comparison.draw(found)
    assert set(drawn) == {"pareto", "types"} and all(svg.startswith("<?xml") for svg in drawn.values())
    assert comparison.draw(found) == drawn


def test_a_comparison_is_written_beside_its_figures(tmp_path: Path) -> None:
    found = comparison.compare(FACTS)
    comparison.write(tmp_path / "comparison", found, "degla run x")
    files = {path.name: path.read_text() for path in (tmp_path / "comparison").iterdir()}
    assert set(files) == {"comparison.json", "comparison.md", "pareto.svg", "types.svg"}
    assert json.loads(files["comparison.json"]) == found and "](pareto.svg)" in files["comparison.md"]
    assert files["comparison.md"] == comparison.markdown(found, "degla run x")


def test_types_are_compared_on_every_set_but_those_of_retention() -> None:
    names = ["sugarcrepe.swap_obj", "zeroshot.a.top1", "coco_retrieval.t2i_r1", "heldout.swap_nouns"]
    scores = {"composition": 0.5, "zeroshot.mean": 0.5} | dict.fromkeys(names, 0.5)
    run = {"seed": 1, "scores": scores, "before": scores, "subsets": names, "blind": {}}
    rows = [one | {"runs": [run]} for one in FACTS["rows"] if one["name"] in ("degla", "no_swap_nouns")]
    types = comparison.compare(FACTS | {"rows": rows})["types"]
    assert types == {"swap_nouns": {"sugarcrepe.swap_obj": 0.0, "heldout.swap_nouns": 0.0}}


def test_without_a_measure_of_retention_there_is_a_table_and_no_trade_off() -> None:
    scores = {"composition": 0.5}
    run = {"seed": 1, "scores": scores, "before": scores, "subsets": [], "blind": {}}
    rows = [one | {"runs": [run]} for one in FACTS["rows"] if one["name"] in ("degla", "negclip")]
    found = comparison.compare(FACTS | {"rows": rows})
    assert found["across"] is None and found["pareto"] == []
    page = comparison.markdown(found, "degla run x")
    assert "| DEGLA | 50.0 |" in page and ".svg" not in page and comparison.draw(found) == {}


def test_what_was_not_scored_is_a_dash_and_a_change_of_nothing_has_no_sign() -> None:
    rows = [row("degla", [(0.7, 0.8), (0.7, 0.8)], group="degla"), row("negclip", [(0.7004, 0.8), (0.7, 0.8)])]
    rows[1]["difference"] = {"composition": {"value": -0.0002, "low": -0.011, "high": 0.0004}}
    found = comparison.compare(FACTS | {"rows": rows})
    found["rows"][1]["mean"]["zeroshot.mean"] = None
    page = comparison.markdown(found, "degla run x")
    assert "| NEGCLIP | 0.0 (−1.1 to 0.0) |" in page
    assert "| – ± 0.0 |" in page


def test_blind_levels_and_what_is_asked_stand_in_the_tables() -> None:
    names = ["composition", "aro.vg_relation.macro", "aro.vg_relation.micro", "valse.counting-hard", "aro.coco_order"]
    scores = dict.fromkeys(names, 0.5)
    run = {"seed": 1, "scores": scores, "before": scores, "subsets": [], "blind": {}}
    judged = run | {"blind": {"composition": 0.61, "valse.counting-hard": 0.62}}
    rows = [FACTS["rows"][0] | {"runs": [run]}, FACTS["rows"][1] | {"runs": [judged]}]
    page = comparison.markdown(comparison.compare(FACTS | {"rows": rows}), "degla run x")
    assert "| best text-only baseline (blind) | 61.0 |" in page
    assert "| row | aro.vg_relation.macro | valse.counting-hard | aro.coco_order |" in page
    assert "| best text-only baseline (blind) |  | 62.0 |  |" in page
    assert "| DEGLA | 50.0 | 50.0 | 50.0 |" in page


def test_a_row_is_better_than_the_start_only_by_the_rule_of_the_report() -> None:
    told = [{"composition": "up", "zeroshot.mean": "down"}, {"composition": "blind", "zeroshot.mean": "down"}]
    runs = [run | {"shows": words} for run, words in zip(FACTS["rows"][1]["runs"], told, strict=True)]
    page = comparison.markdown(comparison.compare(FACTS | {"rows": [FACTS["rows"][1] | {"runs": runs}]}), "degla run x")
    assert "## Against the start" in page and "| DEGLA | blind 1, up 1 | down 2 |" in page


def test_the_search_shows_what_was_chosen_and_what_it_cost() -> None:
    tried = [
        {"settings": {"train.lr": 0.001, "train.objective.igc": 2.0}, "score": 0.6, "own": 0.7, "retrieval": 0.5},
        {"settings": {"train.lr": 0.002, "train.objective.igc": 1.0}, "score": 0.65, "own": 0.8, "retrieval": 0.5},
    ]
    rows = [*FACTS["rows"]]
    rows[0] = rows[0] | {"search": {"chosen": tried[1]["settings"], "seconds": 90.0, "trials": tried}}
    plan = {"trials": 2, "seed": 5, "train_seed": 9}
    page = comparison.markdown(comparison.compare(FACTS | {"rows": rows, "search": plan}), "degla run x")
    assert "| NEGCLIP | `lr=0.002`, `objective.igc=1` | 65.0 | 80.0 | 50.0 | 60.0 | 1.5 |" in page
    assert "tried 2 settings of its grid, drawn by seed 5 and trained with seed 9" in page


def test_titles_stay_text() -> None:
    rows = [one | {"title": "<script> | [x](y) `z`"} for one in FACTS["rows"]]
    hostile = FACTS | {"rows": rows, "description": "<script>", "settings": ["a=`<script>`"]}
    page = comparison.markdown(comparison.compare(hostile), "degla run x")
    assert r"&lt;script&gt; \| \[x\](y) \`z\`" in page and page.count("<script>") == page.count("`a= <script>`") == 1
    assert comparison.draw(comparison.compare(FACTS | {"rows": [FACTS["rows"][0] | {"title": "$^{$"}]}))["pareto"]
