"""Scores in the terminal and in Prefect: what judges without pictures reach stands beside them, and colours tell it."""

from typing import Any

from flows import score_tables
from flows.terminal import out


def aggregate(after: float, blind: float, **more: Any) -> dict[str, Any]:
    def around(value: float, half: float = 0.02) -> dict[str, float]:
        return {"value": value, "low": value - half, "high": value + half}

    change = around(after - 0.5) | {"p": 0.001, "detectable": 0.03}
    both = {"before": around(0.5), "after": around(after), "difference": change, "chance": 0.5}
    return {"n": 9, "of": 10, "headline": None, "subset": None, "blind": {"rule": around(blind)}} | both | more


META = {
    "aggregates": {
        "composition": aggregate(0.8, 0.81, headline="composition"),
        "sugarcrepe.mean_files": aggregate(0.7, 0.6),
        "sugarcrepe.micro": aggregate(0.7, 0.6),
        "sugarcrepe.swap_att": aggregate(0.7, 0.6, subset="swap_att"),
    }
}


def test_a_run_is_told_with_what_is_reached_blind() -> None:
    with out.capture() as shown:
        out.print(score_tables.of_run(META))
    printed = shown.get()
    assert "81.0" in printed and "9 of 10" in printed and "micro" not in printed
    assert printed.index("mean_files") < printed.index("composition") < printed.index("swap_att")
    composition, retention = score_tables.says(META)
    assert composition.startswith("composition: +30.0 points") and "81.0 %" in composition
    assert retention == "retention: Nothing measures it here."


def test_only_a_gain_above_the_blind_judges_is_coloured() -> None:
    changes = [str(cell.style) for cell in score_tables.of_run(META).columns[4].cells]  # type: ignore[union-attr]
    assert changes == ["green", "", "green"]
    assert [row["shows"] for row in score_tables.rows(META)] == ["up", "blind", "up"]
