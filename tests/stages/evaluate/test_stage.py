"""evaluate as a stage: what it makes of the artifacts of a run, and what it says of mistakes before any work."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import clip, tables
from pipeline.errors import UserError
from pipeline.schema import SCORES
from pipeline.stage import silent
from stages.evaluate import STAGE, Config
from stages.evaluate.aggregates import aggregate
from tests.stages.small_road import SmallRoad, build, write_benchmarks


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> SmallRoad:
    return build(tmp_path_factory.mktemp("home"))


def run(road: SmallRoad, out: Path, **config: Any) -> tuple[pa.Table, dict[str, Any]]:
    out.mkdir(exist_ok=True)
    meta = STAGE.run(Config(**config), road.artifacts, out, silent)
    return tables.read(out), meta


def test_the_stage_scores_both_models_on_everything_there_is(road: SmallRoad, tmp_path: Path) -> None:
    scores, meta = run(road, tmp_path)
    assert scores.schema.equals(SCORES)
    there = {"sugarcrepe", "valse", "aro", "zeroshot", "retrieval", "heldout"}
    assert set(scores["benchmark"].unique().to_pylist()) == there
    rows = {one["values"]: one["counts"] for one in pc.value_counts(scores["model"].cast(pa.string())).to_pylist()}
    assert rows["before"] == rows["after"] > rows["blind:rule"] == rows["blind:ngrams"] > 0
    assert meta["notes"] == []
    assert json.loads(json.dumps(meta, allow_nan=False)) == meta
    for name in ("composition", "sugarcrepe.mean_files", "valse.mean_files", "aro.vg_relation.macro", "aro.coco_order"):
        assert 0 <= meta["aggregates"][name]["before"]["low"] <= meta["aggregates"][name]["before"]["value"]
    assert {"zeroshot.mean", "zeroshot.circles.top1", "retrieval.i2t_r1", "heldout.swap_nouns"} < set(
        meta["aggregates"]
    )
    assert meta["models"]["after"]["activation"] == "gelu"


def test_every_row_of_the_scores_has_its_texts_and_image_in_options(road: SmallRoad, tmp_path: Path) -> None:
    run(road, tmp_path)
    with tables.connect({"scores": tmp_path, "options": tmp_path / "options"}) as sql:
        key = "(benchmark, subset, row_id)"
        lost = sql.sql(f"from scores anti join options using {key}").fetchall()
        assert lost == [] and sql.sql(f"select count(*) = count(distinct {key}) from options").fetchall() == [(True,)]
        assert sql.sql("select image, texts from options where subset = 'add_obj' and row_id = '0'").fetchall() == [
            ("sugarcrepe/images/0.png", ["a red circle beside a blue square", "a blue circle beside a red square"])
        ]
        matched = sql.sql(
            f"""select bool_and(len(texts) = len(similarities)) from scores join options using {key}
                where rule = 'choice' and similarities is not null"""
        ).fetchall()
        assert matched == [(True,)]
        (heldout,) = sql.sql(
            "select distinct image from options where benchmark = 'heldout' order by 1 limit 1"
        ).fetchall()
        assert (road.artifacts["pairs"].path / "images" / heldout[0]).is_file()
        assert sql.sql("select texts[1] from options where rule = 'classify' limit 1").fetchall() == [
            ("a picture of a red circle.",)
        ]


def test_every_aggregate_is_a_reread_of_the_scores(road: SmallRoad, tmp_path: Path) -> None:
    scores, meta = run(road, tmp_path)
    assert aggregate(scores) == meta["aggregates"]
    with tables.connect({"scores": tmp_path}) as sql:
        macro, right_first = sql.execute(
            """select (select avg(a) from (select avg(correct) a from scores
                       where model = 'after' and benchmark = 'sugarcrepe' group by subset)),
                      (select bool_and((correct = 1) = (similarities[1] > list_max(similarities[2:])))
                       from scores where protocol not like '%tie=right%' and not isnan(correct))"""
        ).fetchone()  # type: ignore[misc]
    assert meta["aggregates"]["sugarcrepe.mean_files"]["after"]["value"] == pytest.approx(macro)
    assert right_first


def test_a_leaked_row_is_flagged_and_left_out_of_the_clean_score(road: SmallRoad, tmp_path: Path) -> None:
    scores, meta = run(road, tmp_path, benchmarks=("sugarcrepe",))
    flagged = scores.filter(scores["leaked"])
    assert set(zip(flagged["subset"].to_pylist(), flagged["row_id"].to_pylist(), strict=True)) == {("swap_att", "0")}
    assert meta["aggregates"]["sugarcrepe.swap_att"]["clean"]["n"] == 3
    assert "clean" not in meta["aggregates"]["sugarcrepe.add_obj"]


def test_a_finished_part_and_finished_embeddings_are_reused(road: SmallRoad, tmp_path: Path, monkeypatch: Any) -> None:
    _, meta = run(road, tmp_path)
    first = {path.name: path.read_bytes() for path in tables.files(tmp_path)}
    tables.part(tmp_path, 1).unlink()
    (tmp_path / ".work/after.json").unlink()
    loaded: list[str] = []
    load = clip.load
    monkeypatch.setattr(
        clip, "load", lambda model, *rest, **more: (loaded.append(model), load(model, *rest, **more))[1]
    )
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / ".work").rglob("*.npy")}
    _, meta_again = run(road, tmp_path)
    assert {path.name: path.read_bytes() for path in tables.files(tmp_path)} == first and meta_again == meta
    assert loaded and not any("tower" in name for name in loaded), "the starting model was finished: no loading"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / ".work").rglob("*.npy")} == written


def test_missing_images_are_not_scored_and_counted(road: SmallRoad, tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_benchmarks(root)
    (root / "sugarcrepe/images/1.png").unlink()
    (root / "zeroshot/circles/images/0_red/1.png").unlink()
    scores, meta = run(road, tmp_path / "out", root=root, official=False)
    both = scores.filter(pc.is_in(scores["model"].cast(pa.string()), pa.array(["before", "after"])))
    lacking = both.filter(pc.is_nan(both["correct"]))
    assert lacking["similarities"].null_count == len(lacking) == 4  # two subsets, two models
    found = meta["aggregates"]["sugarcrepe.mean_files"]
    assert (found["n"], found["of"]) == (6, 8)


def test_mixtures_are_scored_between_start_and_trained(road: SmallRoad, tmp_path: Path) -> None:
    scores, meta = run(road, tmp_path, benchmarks=("sugarcrepe", "zeroshot"), curve=(0.5, 0.999999), blind=False)
    assert set(scores["model"].unique().to_pylist()) == {"before", "after", "mix:0.5", "mix:0.999999"}
    (half, nearly) = meta["curve"]
    assert [half["alpha"], nearly["alpha"]] == [0.5, 0.999999]
    assert nearly["scores"] == {name: one["after"]["value"] for name, one in meta["aggregates"].items()}
    assert set(meta["models"]) == {"before", "after", "mix:0.5", "mix:0.999999"}


def test_attacked_rows_stand_beside_the_others(road: SmallRoad, tmp_path: Path) -> None:
    _, meta = run(road, tmp_path, benchmarks=("zeroshot",), robustness={"rows": 3, "steps": 2}, blind=False)
    found = meta["aggregates"]["robust.zeroshot.mean"]
    assert found["n"] == 3 and {"before", "after", "difference"} <= set(found)


def test_the_command_line_starts_without_what_scoring_needs() -> None:
    """Config and stage are read at every start; torch and the rest only when something is scored."""
    heavy = ("torch", "open_clip", "torchvision", "scipy", "sklearn", "textblob", "vllm", "transformers", "matplotlib")
    code = f"import sys, stages.evaluate; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_unknown_benchmark_and_absent_root_fail_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no benchmark 'sugar'"):
        STAGE.outside(Config(benchmarks=("sugar",)))
    with pytest.raises(UserError, match="there is no folder"):
        STAGE.outside(Config(root=tmp_path / "nowhere"))


def test_outside_sees_changed_files_and_images(tmp_path: Path) -> None:
    write_benchmarks(tmp_path)
    config = Config(root=tmp_path, benchmarks=("sugarcrepe",))
    first = STAGE.outside(config)
    (tmp_path / "sugarcrepe/images/0.png").unlink()
    assert STAGE.outside(config) != first


def test_nothing_to_measure_is_said(road: SmallRoad, tmp_path: Path) -> None:
    no_split = dataclasses.replace(road.artifacts["pairs"], path=tmp_path / "elsewhere")
    inputs = {**road.artifacts, "pairs": no_split}
    with pytest.raises(UserError, match="there is no valse"):
        STAGE.run(Config(benchmarks=("valse",)), inputs, tmp_path, silent)
