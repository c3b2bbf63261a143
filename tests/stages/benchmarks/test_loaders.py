"""The table of benchmarks: loading one, official counts, and what every entry must have."""

from functools import partial
from pathlib import Path

import pytest

from pipeline import clip
from pipeline.errors import UserError
from stages.assemble.decontaminate import benchmark_rows
from stages.benchmarks import loaders as benchmarks
from stages.benchmarks.registry import registry
from stages.evaluate import Config
from stages.evaluate.measure import measure
from tests.paths import ROOT, real
from tests.stages.benchmarks.files import jpeg, save
from tests.stages.benchmarks.test_bivlc import write_bivlc_shard
from tests.stages.benchmarks.test_hard_positives import write_hard_positives
from tests.stages.small_road import model_folder, write_benchmarks


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_benchmarks(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("name", "rows", "pictures"), [("sugarcrepe", 7511, 1560), ("valse", 7702, None)])
def test_real_files_have_the_documented_counts_and_digests(
    name: str, rows: int, pictures: int | None, tmp_path: Path
) -> None:
    (tmp_path / name).symlink_to(real(f"benchmarks/{name}"))
    known = registry()[name]["subsets"]
    with pytest.raises(UserError, match="none of the .* images"):
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


def test_official_refuses_changed_counts_and_unknown_files(root: Path) -> None:
    with pytest.raises(UserError, match="add_obj has valid 4; expected 2062"):
        benchmarks.load("sugarcrepe", root, official=True)
    (root / "sugarcrepe" / "add_obj.json").rename(root / "sugarcrepe" / "a_new_one.json")
    with pytest.raises(UserError, match="no subset 'a_new_one'"):
        benchmarks.load("sugarcrepe", root, official=True)


def test_absent_benchmark_and_absent_images(root: Path) -> None:
    with pytest.raises(UserError, match="there is no sugarcrepe"):
        benchmarks.load("sugarcrepe", root / "aro", official=False)
    for path in (root / "valse" / "images").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="none of the 3 images of valse is there"):
        benchmarks.load("valse", root, official=False)


def test_every_benchmark_is_registered_and_documented() -> None:
    page = (ROOT / "docs" / "benchmarks-data.md").read_text()
    for name in benchmarks.folder_readers():
        assert {"title", "licence", "pictures", "measures", "verified"} <= set(registry()[name]), name
        assert f"| `{name}` |" in page
    for name, facts in registry()["zeroshot"]["subsets"].items():
        (line,) = [line for line in page.splitlines() if line.startswith("|") and f"`{name}`" in line]
        assert f"{facts['valid']:,}" in line and facts["metric"].replace("_", " ").replace("top1", "top-1") in line


def test_overlaps_are_sought_by_numbers_that_are_public(tmp_path: Path) -> None:
    """A set that numbers its own pictures must not be taken for Visual Genome, which has a picture 1 too."""
    write_bivlc_shard(tmp_path / "bivlc/test.parquet", rows=1, group=1)
    jpeg(tmp_path / "mmvp/MLLM_VLM Images/Color/1.jpg")
    save(tmp_path / "mmvp/Questions.csv", "id,type,statement\n1,Color,a red cup\n2,Color,a blue cup")
    jpeg(tmp_path / "zeroshot/cars/images/Audi/00001.jpg")
    save(tmp_path / "zeroshot/cars/classes.json", {"classnames": ["Audi"], "templates": ["a {}"]})
    rows = benchmark_rows(tmp_path, ["bivlc", "mmvp", "zeroshot"])
    assert rows["file"].to_pylist() == ["000000000000.jpg", "mmvp:1", None]


def test_a_root_of_everything_is_read(tmp_path: Path) -> None:
    write_benchmarks(tmp_path)
    write_hard_positives(tmp_path / "hard_positives")
    write_bivlc_shard(tmp_path / "bivlc/test.parquet", rows=2, group=1)
    names = benchmarks.available(tmp_path)
    assert set(names) == {"sugarcrepe", "valse", "aro", "bivlc", "hard_positives", "zeroshot"}
    for name in names:
        assert benchmarks.load(name, tmp_path, official=False)


def test_a_real_model_is_scored_on_every_newer_set(tmp_path: Path) -> None:
    """Files as their authors publish them, to scores: nothing is left out."""
    root = tmp_path / "root"
    write_bivlc_shard(root / "bivlc/test.parquet", rows=4, group=3)
    write_hard_positives(root / "hard_positives")
    for number in (1, 2):
        jpeg(root / f"mmvp/MLLM_VLM Images/Color/{number}.jpg")
    save(root / "mmvp/Questions.csv", "id,type,statement\n1,Color,a red cup\n2,Color,a blue cup")
    save(root / "vl_checklist/data/Relation/swig_action.json", [["1.jpg", {"POS": ["a man"], "NEG": ["a dog"]}]])
    jpeg(root / "vl_checklist/images/swig/1.jpg")
    load = partial(clip.load, str(model_folder(tmp_path / "tower")))
    found = measure({"model": load}, Config(root=root, official=False, blind=False)).aggregates
    assert {name: (one["n"], one["of"]) for name, one in found.items() if name.count(".") == 1} == {
        **dict.fromkeys(("bivlc.text", "bivlc.image", "bivlc.group"), (4, 4)),
        **dict.fromkeys(("mmvp.text", "mmvp.image", "mmvp.group"), (1, 1)),
        "hard_positives.attributes": (1, 1),
        "vl_checklist.relation": (1, 1),
    }
    assert found["bivlc.add_obj.group"]["n"] == 2 and found["vl_checklist.relation.swig_action"]["n"] == 1


@pytest.mark.parametrize(
    ("name", "family", "question"),
    [
        ("composition", "composition", "composition"),
        ("sugarcrepe.macro7", "composition", "composition"),
        ("heldout.mean", "heldout", "composition"),
        ("zeroshot.mean", "retention", "retention"),
        ("coco_retrieval.mean_r1", "retention", "retention"),
        ("robust.pairs.mean", "robust", None),
        ("gone.mean", "composition", "composition"),
    ],
)
def test_what_an_aggregate_is_about(name: str, family: str, question: str | None) -> None:
    assert benchmarks.about(name)[:3] == (name.partition(".")[0], family, question)


def test_what_the_registry_calls_retrieval_or_zero_shot_asks_for_retention() -> None:
    kept = {name for name in registry() if name.endswith(("retrieval", "zeroshot"))}
    assert kept and kept == {name for name in registry() if benchmarks.about(name).question == "retention"}
