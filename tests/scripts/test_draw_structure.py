import subprocess
import sys

from scripts.draw_structure import BEGIN, END, boxes, drawing, mermaid, placed, reduced
from tests.paths import ROOT


def test_the_page_shows_the_structure_of_the_code() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/draw_structure.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_drawing_is_the_same_each_time_and_small_enough_to_read() -> None:
    assert drawing() == drawing()
    assert drawing().count('["') <= 26, "at most about twenty boxes, and the groups around them"


def test_boxes_are_packages_and_the_modules_beside_them_in_stages() -> None:
    modules = {"pipeline", "pipeline.errors", "pipeline.clip", "pipeline.clip.names", "stages", "stages.pages"}
    modules |= {"stages.train", "stages.train.loop"}
    assert boxes(modules, ["pipeline", "stages"]) == ["pipeline", "pipeline.clip", "stages.pages", "stages.train"]


def test_what_other_arrows_imply_is_left_out_and_a_circle_is_not() -> None:
    assert reduced({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}
    circle = {"a": {"b", "c"}, "b": {"a", "c"}, "c": set()}
    assert reduced(circle) == circle


def test_verbs_stand_in_a_group_of_their_own() -> None:
    graph = mermaid({"pipeline": set(), "stages.train": {"pipeline"}}, ["pipeline", "stages"], ["stages.train"])
    assert graph.splitlines() == [
        "```mermaid",
        "flowchart TD",
        '  subgraph group0 ["pipeline/"]',
        '    pipeline["pipeline"]',
        "  end",
        '  subgraph group1 ["stages/: shared"]',
        "  end",
        '  subgraph group2 ["stages/: verbs"]',
        '    stages_train["stages.train"]',
        "  end",
        "  stages_train --> pipeline",
        "```",
    ]


def test_only_what_is_between_the_markers_changes() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert placed(page, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
