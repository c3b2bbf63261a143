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
        | {"subsets": ["sugarcrepe.swap_obj", "zeroshot.mean"]}
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


def test_rows_are_compared_seed_by_seed() -> None:
    gaps = comparison.versus(comparison.compare(FACTS), "degla", "negclip")
    assert gaps is not None and gaps["seeds"] == [1, 2]
    assert gaps["composition"] == {"mean": pytest.approx(0.11), "sd": pytest.approx(0.0141421356)}
    assert comparison.versus(comparison.compare(FACTS), "degla", "late") is None


def test_the_page_says_it_all() -> None:
    found = comparison.compare(FACTS)
    page = comparison.markdown(found, "degla run x", "figures")
    assert "| **DEGLA** | 72.0 ± 2.8 | 85.0 ± 0.0 |" in page
    assert "| before training | 50.0 | 90.0 |" in page
    assert "DeGLA minus NEGCLIP, seed by seed: composition +11.0 ± 1.4, retention +4.0 ± 1.4 points." in page
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
    run = {"seed": 1, "scores": scores, "before": scores, "subsets": names}
    rows = [one | {"runs": [run]} for one in FACTS["rows"] if one["name"] in ("degla", "no_swap_nouns")]
    types = comparison.compare(FACTS | {"rows": rows})["types"]
    assert types == {"swap_nouns": {"sugarcrepe.swap_obj": 0.0, "heldout.swap_nouns": 0.0}}


def test_without_a_measure_of_retention_there_is_a_table_and_no_trade_off() -> None:
    scores = {"composition": 0.5}
    run = {"seed": 1, "scores": scores, "before": scores, "subsets": []}
    rows = [one | {"runs": [run]} for one in FACTS["rows"] if one["name"] in ("degla", "negclip")]
    found = comparison.compare(FACTS | {"rows": rows})
    assert found["across"] is None and found["pareto"] == [] and comparison.versus(found, "degla", "negclip") is None
    page = comparison.markdown(found, "degla run x")
    assert "| DEGLA | 50.0 |" in page and ".svg" not in page and comparison.draw(found) == {}


def test_what_was_not_scored_is_a_dash_and_a_change_of_nothing_has_no_sign() -> None:
    rows = [row("degla", [(0.7, 0.8), (0.7, 0.8)], group="degla"), row("negclip", [(0.7004, 0.8), (0.7, 0.8)])]
    found = comparison.compare(FACTS | {"rows": rows})
    found["rows"][1]["mean"]["zeroshot.mean"] = None
    page = comparison.markdown(found, "degla run x")
    assert "composition 0.0 ± 0.0, retention 0.0 ± 0.0 points" in page
    assert "| – ± 0.0 |" in page


def test_titles_stay_text() -> None:
    rows = [one | {"title": "<script> | [x](y) `z`"} for one in FACTS["rows"]]
    hostile = FACTS | {"rows": rows, "description": "<script>", "settings": ["a=`<script>`"]}
    page = comparison.markdown(comparison.compare(hostile), "degla run x")
    assert r"&lt;script&gt; \| \[x\](y) \`z\`" in page and page.count("<script>") == page.count("`a= <script>`") == 1
    assert comparison.draw(comparison.compare(FACTS | {"rows": [FACTS["rows"][0] | {"title": "$^{$"}]}))["pareto"]
