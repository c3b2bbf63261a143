"""SugarCrepe's files, good and broken."""

import json
from pathlib import Path

import pytest

from pipeline.errors import UserError
from stages.benchmarks import loaders as benchmarks
from stages.benchmarks import sugarcrepe
from tests.stages.benchmarks.files import NAMED, assert_refused
from tests.stages.small_road import write_benchmarks


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_benchmarks(tmp_path)
    return tmp_path


def test_a_file_is_a_subset_and_its_keys_name_the_rows(root: Path) -> None:
    add, swap = benchmarks.load("sugarcrepe", root, official=False)
    assert (add.name, swap.name, swap.rule, swap.tie) == ("add_obj", "swap_att", "choice", "wrong")
    row = swap.rows[0]
    assert (row.row_id, row.image_key) == ("0", "0.png")
    assert row.texts == ("a red circle beside a blue square", "a blue circle beside a red square")


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


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("sugarcrepe/notes.json", {"about": "these files"}, "row about has filename = None"),
        ("sugarcrepe/x.json", '{"1": {}, "1": {}}', "the key '1' is there twice"),
        ("sugarcrepe/x.json", {"1": {"filename": "/etc/passwd", **NAMED}}, "expected a file name below images"),
        ("sugarcrepe/x.json", {"1": {"filename": "../0.png", **NAMED}}, "expected a file name below images"),
        ("sugarcrepe/x.json", {"1": {"filename": "0.png", **NAMED, "caption": " "}}, "row 1 has caption = ' '"),
        ("sugarcrepe/x.json", '{"1": {"filename": "\\ud800", "caption": "a"}}', "has filename = '.ud800'"),
        ("sugarcrepe/x.json", "[" * 100_000, "cannot be read"),
    ],
)
def test_broken_files_are_one_line_that_says_where(tmp_path: Path, file: str, content: object, message: str) -> None:
    assert_refused(tmp_path, file, content, message)


def test_means_by_file_by_group_and_over_all_rows() -> None:
    names = ["add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj"]
    made = {item.name: item for item in sugarcrepe.means("sugarcrepe", names, {})}
    means = ("macro7", "group_micro", "micro", "add", "replace", "swap")
    assert list(made) == [f"sugarcrepe.{name}" for name in (*means, *names)]
    assert [weight for _, weight in made["sugarcrepe.macro7"].cells] == [1 / 7] * 7
    assert [len(rows) for rows, _ in made["sugarcrepe.group_micro"].cells] == [2, 3, 2], "files of a group are pooled"
    assert len(made["sugarcrepe.micro"].cells) == 1 and made["sugarcrepe.swap_att"].subset == "swap_att"


def test_a_name_of_the_papers_stands_for_the_papers_files() -> None:
    names = ["add_att", "add_obj", "swap_att"]
    made = {item.name: item for item in sugarcrepe.means("sugarcrepe", names, {})}
    assert list(made) == [f"sugarcrepe.{name}" for name in ("mean_files", "add", *names)]
    assert made["sugarcrepe.mean_files"].says == "plain mean of the files, 3 of 7"
    others = [f"file{i}" for i in range(7)]
    assert "sugarcrepe.macro7" not in {item.name for item in sugarcrepe.means("sugarcrepe", others, {})}
