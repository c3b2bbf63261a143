"""The table of binding splits: what it says is what evaluate recorded, and it is on both pages."""

from pathlib import Path
from typing import Any

from stages.report.bindings import tables
from tests.stages.report.reading import parsed
from tests.stages.small_road import SmallRoad


def facts(n: int) -> dict[str, Any]:
    return {"n": n, "of": n, "before": {"value": 0.5}, "after": {"value": 0.75}, "difference": {"value": 0.25}}


def test_kinds_of_a_benchmark_stand_together_and_one_without_bindings_is_left_out() -> None:
    splits = {
        "valse.attributes.seen": facts(3),
        "valse.attributes.without": facts(9),
        "sugarcrepe.attributes.unseen": facts(2),
        "valse.relations.mixed": facts(1),
        "sugarcrepe.relations.without": facts(2),
    }
    share = {"true": 0.8, "foil": 0.4}
    overlap = {name: {"attributes": share, "relations": share} for name in ("valse", "sugarcrepe")}
    made = tables({"splits": splits, "overlap": overlap})
    assert [(one["benchmark"], one["kind"], [(row["label"], row["n"]) for row in one["rows"]]) for one in made] == [
        ("VALSE", "attribute and object", [("all seen", 3), ("no binding", 9)]),
        ("VALSE", "object, relation, object", [("some seen", 1)]),
        ("SugarCrepe", "attribute and object", [("none seen", 2)]),
    ]
    assert made[0]["overlap"] == share
    assert tables({"splits": {}, "overlap": {}}) == []


def test_both_pages_show_the_splits(road: SmallRoad, page: Path) -> None:
    recorded = road.artifacts["scores"].meta["bindings"]["splits"]
    seen = {name: one for name, one in recorded.items() if name.endswith("attributes.seen")}
    assert seen
    html, text = parsed(page / "report.html"), (page / "report.md").read_text()
    shown = " ".join("".join(html.text).split())
    assert "Binding splits" in shown and "all seen" in shown
    after = f"{100 * recorded['heldout.attributes.seen']['after']['value']:.1f}"
    lines = [line for line in text.splitlines() if "attribute and object | all seen" in line]
    assert len(lines) == len(seen) and any(f"| {after} [" in line for line in lines)
