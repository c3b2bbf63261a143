import json
from pathlib import Path

import pytest

from pipeline.errors import UserError
from stages.benchmarks import loaders as benchmarks
from tests.paths import ROOT, real
from tests.stages.small_road import write_benchmarks


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_benchmarks(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("name", "rows", "pictures"), [("sugarcrepe", 7511, 1560), ("valse", 7702, None)])
def test_real_files_have_the_documented_counts_and_digests(
    name: str, rows: int, pictures: int | None, tmp_path: Path
) -> None:
    (tmp_path / name).symlink_to(real(f"benchmarks/{name}"))
    known = benchmarks.registry()[name]["subsets"]
    with pytest.raises(UserError, match="none of the .* pictures"):
        benchmarks.load(name, tmp_path, official=True)
    subsets = benchmarks.read(name, tmp_path)
    benchmarks.assert_official(subsets)
    assert {subset.name: len(subset.rows) for subset in subsets} == {key: one["valid"] for key, one in known.items()}
    assert {s.name: len({row.image_key for row in s.rows}) for s in subsets} == {
        key: one["pictures"] for key, one in known.items()
    }
    assert sum(len(subset.rows) for subset in subsets) == rows
    if pictures:
        assert len({row.image_key for subset in subsets for row in subset.rows}) == pictures


def test_every_loader_gives_rows_with_the_right_option_first(root: Path) -> None:
    found = {
        (s.benchmark, s.name): s
        for name in benchmarks.available(root)
        for s in benchmarks.load(name, root, official=False)
    }
    for (benchmark, name), subset in found.items():
        if subset.rule == "choice":
            assert all(row.right == (0,) and len(row.texts) >= 2 for row in subset.rows), (benchmark, name)
    row = found["sugarcrepe", "swap_att"].rows[0]
    assert row.texts == ("a red circle beside a blue square", "a blue circle beside a red square")
    assert found["aro", "coco_order"].tie == "right" and found["aro", "vg_relation"].tie == "wrong"
    assert [row.row_id for row in found["valse", "existence"].rows] == ["existence_1", "existence_2", "existence_3"]


def test_aro_cuts_the_box_and_groups_only_what_the_macro_rules_count(root: Path) -> None:
    relation, attribution, _ = benchmarks.load("aro", root, official=False)
    assert [row.group for row in relation.rows] == ["above", "below", "above", None]  # "by" is symmetric
    assert [row.group for row in attribution.rows].count("red_blue") == 25
    assert attribution.rows[-1].group is None  # two rows of tall_short
    picture = relation.rows[0].picture
    assert picture is not None and picture().size == (20, 40)


def test_zeroshot_gives_each_class_its_prompts(root: Path) -> None:
    (subset,) = benchmarks.load("zeroshot", root, official=False)
    assert subset.prompts[0] == ("a picture of a red circle.", "a red circle")
    assert len(subset.rows) == 12 and subset.rows[-1].right == (5,)


def test_zeroshot_refuses_folders_that_do_not_match_the_names(root: Path) -> None:
    (root / "zeroshot/circles/images/extra").mkdir()
    with pytest.raises(UserError, match="6 classes but .* 7 folders"):
        benchmarks.load("zeroshot", root, official=False)


def test_truncated_file_is_one_line_with_the_path(root: Path) -> None:
    path = root / "sugarcrepe" / "swap_att.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(UserError, match=r"swap_att\.json cannot be read") as caught:
        benchmarks.load("sugarcrepe", root, official=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no rows"),
        ({"7": {"filename": "0.png", "caption": "a"}}, "row 7 has negative_caption = None"),
        ({"7": "text"}, "row 7 has filename = None"),
    ],
)
def test_broken_rows_are_named(root: Path, content: object, message: str) -> None:
    (root / "sugarcrepe" / "swap_att.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        benchmarks.load("sugarcrepe", root, official=False)


def test_official_refuses_changed_counts_and_unknown_files(root: Path) -> None:
    with pytest.raises(UserError, match="add_obj has valid 4; expected 2062"):
        benchmarks.load("sugarcrepe", root, official=True)
    (root / "sugarcrepe" / "add_obj.json").rename(root / "sugarcrepe" / "a_new_one.json")
    with pytest.raises(UserError, match="no subset 'a_new_one'"):
        benchmarks.load("sugarcrepe", root, official=True)


def test_absent_benchmark_and_absent_pictures(root: Path) -> None:
    with pytest.raises(UserError, match="there is no sugarcrepe"):
        benchmarks.load("sugarcrepe", root / "aro", official=False)
    for path in (root / "valse" / "images").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="none of the 3 pictures of valse is there"):
        benchmarks.load("valse", root, official=False)


def test_every_benchmark_is_registered_and_documented() -> None:
    page = (ROOT / "docs" / "benchmarks-data.md").read_text()
    for name in benchmarks.LOADERS:
        assert {"title", "licence", "pictures", "measures"} <= set(benchmarks.registry()[name]), name
        assert f"| `{name}` |" in page
    for name, facts in benchmarks.registry()["zeroshot"]["subsets"].items():
        (line,) = [line for line in page.splitlines() if line.startswith("|") and f"`{name}`" in line]
        assert f"{facts['valid']:,}" in line and facts["metric"].replace("_", " ").replace("top1", "top-1") in line
