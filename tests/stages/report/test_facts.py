"""The facts: counted from the artifacts, said in words the intervals allow, joined to an ablation of the same start."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.stage import silent
from stages.report import STAGE, Config
from stages.report.facts import clearest, gather
from stages.verdicts import verdict
from tests.stages.report.reading import parsed, with_aggregate
from tests.stages.small_road import SmallRoad


@pytest.fixture(scope="module")
def facts(road: SmallRoad) -> dict[str, Any]:
    return gather(Config(), road.artifacts)


def test_facts_are_the_json_of_the_page(facts: dict[str, Any], page: Path) -> None:
    assert json.loads((page / "report.json").read_text()) == json.loads(json.dumps(facts))


def test_data_and_generation_are_counted(facts: dict[str, Any]) -> None:
    assert facts["data"]["pairs"] == [
        {"split": "test", "pairs": 8, "pictures": 8}, {"split": "train", "pairs": 16, "pictures": 16},
    ]  # fmt: skip
    assert facts["data"]["pairs_rejected"] == [{"reason": "empty_caption", "rows": 1, "example": "x:1"}]
    assert facts["data"]["leaks"] == [
        {"benchmark": "sugarcrepe", "subset": "swap_att", "rule": "caption_hash", "rows": 1}
    ]
    assert [(row["type"], row["accepted"]) for row in facts["generation"]["types"]][-1] == ("replace_adjectives", 0)
    assert facts["generation"]["tokens"] == {"prompt": 24 * 5 * 10, "reply": 24 * 5 * 5}
    assert facts["training"]["steps"] == 20 and facts["training"]["terms"][0]["first"] == pytest.approx(0.95, abs=0.1)
    assert [one["kind"] for one in facts["provenance"]] == ["pairs", "negatives", "dataset", "model", "scores"]


def test_the_headline_says_what_the_verdicts_say(road: SmallRoad, facts: dict[str, Any]) -> None:
    first, second = facts["headline"]
    assert (first["question"], second["question"]) == ("composition", "retention")
    found = road.artifacts["scores"].meta["aggregates"]["composition"]
    assert first["says"] == verdict("composition", found).says and first["says_rule"] == found["says"]
    assert second["verdict"] == "new", "the small road starts from random weights"


def test_a_rise_that_a_judge_reaches_blind_is_no_gain_on_the_page(road: SmallRoad) -> None:
    change = {"value": 0.3, "low": 0.2, "high": 0.4, "p": 0.001, "detectable": 0.1}
    blind: dict[str, Any] = {"blind": {"ngrams": {"value": 0.9, "low": 0.85, "high": 0.95}}}
    after = {"value": 0.92, "low": 0.88, "high": 0.96}
    scores = with_aggregate(road.artifacts["scores"], "composition", difference=change, after=after, **blind)
    facts = gather(Config(), {**road.artifacts, "scores": scores})
    assert facts["headline"][0]["verdict"] == "blind" and "reaches 90.0 %" in facts["headline"][0]["says"]
    assert facts["benchmarks"][0]["rows"][0]["verdict"] == "blind"


def test_the_clearest_changes_are_by_interval_and_p_and_a_mean_counts_once(facts: dict[str, Any]) -> None:
    def row(name: str, change: float, p: float, aside: bool = False) -> dict[str, Any]:
        return {
            "name": name, "aside": aside, "p": p,
            "difference": {"value": change, "low": change - 0.02, "high": change + 0.02, "p": p},
        }  # fmt: skip

    rows = [row("a", -0.1, 0.001), row("b", 0.1, 0.02), row("c", 0.01, 0.001), row("d", 0.1, 0.2)]
    grouped = [
        {"key": "valse", "rows": [*rows, row("other", 0.2, 0.001, aside=True)]},
        {"key": "composition", "rows": [row("composition", 0.2, 0.001)]},
    ]
    assert [one["name"] for one in clearest(grouped)] == ["a", "b"]
    main = [
        row["name"] for one in facts["benchmarks"] if one["key"] == "valse" for row in one["rows"] if not row["aside"]
    ]
    assert main == ["valse.mean_files", "valse.existence", "valse.plurals"]


def as_comparison(road: SmallRoad, path: Path, **changes: Any) -> Path:
    """comparison.json as an ablation over this very road's benchmarks would write it, with one baseline."""
    found = road.artifacts["scores"].meta["aggregates"]
    names = ("composition", "zeroshot.mean")
    mean = {name: found[name]["after"]["value"] for name in names}
    row = {"name": "negclip", "title": "NegCLIP's loss", "group": "rivals", "mean": mean, "sd": dict.fromkeys(names)}
    before = {name: one["before"]["value"] for name, one in found.items()} | changes
    lost = {"swap_nouns": {"sugarcrepe.swap_att": 0.05, "valse.plurals": None}}
    path.write_text(json.dumps({"rows": [row], "before": before, "types": lost, "seeds": [1, 2, 3]}))
    return path


def test_baselines_of_an_ablation_from_the_same_start_stand_beside_the_run(road: SmallRoad, tmp_path: Path) -> None:
    compared = as_comparison(road, tmp_path / "comparison.json")
    STAGE.run(Config(comparison=compared), road.artifacts, tmp_path, silent)
    facts = json.loads((tmp_path / "report.json").read_text())
    assert [one["label"] for one in facts["trade"]["rivals"]] == ["NegCLIP's loss"]
    text = " ".join(parsed(tmp_path / "report.html").text)
    assert "NegCLIP's loss" in text and "Effect of each negative type" in text
    assert (tmp_path / "figures/types.svg").exists()


def test_an_ablation_from_another_start_is_not_joined(road: SmallRoad, tmp_path: Path) -> None:
    compared = as_comparison(road, tmp_path / "comparison.json", composition=0.123)
    facts = gather(Config(comparison=compared), road.artifacts)
    assert facts["trade"]["rivals"] == []
    assert any("began from other scores" in note for note in facts["notes"])


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"rows": 1}', b"\xff", b'{"rows": [{}], "before": {}, "types": {}, "seeds": []}']
)
def test_a_broken_comparison_is_one_line(road: SmallRoad, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "comparison.json").write_bytes(content)
    with pytest.raises(UserError, match=r"comparison.json: .*; fix: set report.comparison"):
        gather(Config(comparison=tmp_path / "comparison.json"), road.artifacts)


def test_the_curve_runs_from_start_over_mixtures_to_the_trained_model(road: SmallRoad, facts: dict[str, Any]) -> None:
    trade = facts["trade"]
    found = road.artifacts["scores"].meta
    assert [one["alpha"] for one in trade["curve"]] == [0, 0.5, 1]
    assert [one["up"] for one in trade["curve"]] == [
        found["aggregates"]["composition"]["before"]["value"],
        found["curve"][0]["scores"]["composition"],
        found["aggregates"]["composition"]["after"]["value"],
    ]


def test_every_loss_of_a_baseline_has_its_curve(facts: dict[str, Any]) -> None:
    terms = [row["term"] for row in facts["training"]["terms"]]
    assert {"loss", "base_loss", "rank_loss", "fisher_loss", "contrast_distill_loss"} < set(terms)
