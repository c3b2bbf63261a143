"""`degla eval` as a stranger uses it: a small CLIP, a folder of benchmarks, no run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from flows.cli import main as cli
from pipeline import clip
from pipeline.errors import UserError
from tests.stages.small_road import TOWER, model_folder, picture, write_benchmarks


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    write_benchmarks(folder)
    return folder


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(model_folder(tmp_path_factory.mktemp("tower")))


def run(*words: str | Path) -> str:
    result = CliRunner().invoke(cli.app, ["eval", "--no-official", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def facts_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "eval.json").read_text()))


def test_a_table_the_rows_and_a_page(tower: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEGLA_BENCHMARKS", str(root))
    said = run("--model", tower, "--benchmarks", "sugarcrepe,zeroshot", "--out", tmp_path, "--rows", tmp_path / "rows")
    assert "sugarcrepe.swap_att" in said and "zeroshot.circles.top1" in said and "aro" not in said
    rows = pq.read_table(tmp_path / "rows").to_pylist()
    assert {row["model"] for row in rows} == {"model", "blind:rule", "blind:ngrams"}
    found = facts_of(tmp_path)
    assert found["models"]["model"]["activation"] == "gelu" and found["published"]["rows"] == []
    scored = [row for one in found["benchmarks"] for row in one["rows"] if row["name"] == "sugarcrepe.mean_files"]
    value = f"{100 * scored[0]['model']['value']:.1f}"
    assert value in said and value in (tmp_path / "eval.md").read_text()
    page = (tmp_path / "eval.html").read_text()
    assert value in page and tower in page and "change</th>" not in page and "http" not in page


def test_long_captions_are_said_to_be_cut(tower: str, tmp_path: Path) -> None:
    for number, words in enumerate((3, 100)):
        picture(tmp_path / f"root/urban1k_retrieval/image/{number}.jpg", "red", "blue")
        caption = tmp_path / f"root/urban1k_retrieval/caption/{number}.txt"
        caption.parent.mkdir(exist_ok=True)
        caption.write_text(" ".join(["cup"] * words))
    said = run("--model", tower, "--root", tmp_path / "root", "--out", tmp_path / "page")
    line = "urban1k_retrieval: 1 of 2 texts are longer than the 77 tokens"
    assert line in " ".join(said.split()) and line in (tmp_path / "page/eval.html").read_text()
    assert line in (tmp_path / "page/eval.md").read_text().replace("\\", "")


def test_embeddings_from_elsewhere_have_a_row_beside_a_model(tower: str, root: Path, tmp_path: Path) -> None:
    table, file = tmp_path / "items.parquet", tmp_path / "given.parquet"
    listed = CliRunner().invoke(
        cli.app, ["data", "items", str(table), "--root", str(root), "--benchmark", "sugarcrepe"]
    )
    assert listed.exit_code == 0 and "4 images and" in listed.output
    items = pq.read_table(table)
    rng = np.random.default_rng(0)
    pq.write_table(items.append_column("embedding", pa.array(rng.normal(size=(len(items), 5)).tolist())), file)
    asked = ("--root", root, "--benchmarks", "sugarcrepe")
    said = run("--model", file, "--against", tower, *asked, "--out", tmp_path / "page")
    assert "sugarcrepe.swap_att" in said
    found = facts_of(tmp_path / "page")
    assert found["models"]["after"]["embeddings"] == "given.parquet" and found["models"]["after"]["width"] == 5
    for wrong in (["--pretrained", "x"], ["--activation", "gelu"], ["--attack", "1"]):
        words = ["eval", "--no-official", "--model", str(file), *map(str, asked), *wrong]
        assert isinstance(CliRunner().invoke(cli.app, words).exception, UserError), wrong


def test_a_model_against_itself_differs_in_nothing(tower: str, root: Path, tmp_path: Path) -> None:
    run("--model", tower, "--against", tower, "--root", root, "--benchmarks", "sugarcrepe", "--out", tmp_path)
    for one in facts_of(tmp_path)["benchmarks"]:
        for row in one["rows"]:
            change = row["difference"]
            assert (change["value"], change["won"], change["lost"], change["p"]) == (0, 0, 0, 1)
            assert change["low"] == -change["high"] < 0, "so few rows could hide a difference"
    assert "change</th>" in (tmp_path / "eval.html").read_text()


def test_a_program_gets_the_scores_as_json(tower: str, root: Path) -> None:
    words = ["eval", "--no-official", "--model", tower, "--root", str(root), "--benchmarks", "sugarcrepe", "--json"]
    found = json.loads(CliRunner().invoke(cli.app, words, catch_exceptions=False).stdout)
    assert 0 <= found["aggregates"]["sugarcrepe.mean_files"]["model"]["value"] <= 1
    assert found["models"] == {"model": tower} and found["descriptions"]["model"]["activation"] == "gelu"


def test_a_baseline_with_other_weights_is_compared_row_by_row(tower: str, root: Path, tmp_path: Path) -> None:
    other = clip.load(tower, seed=9)
    clip.save_weights(other.model, tmp_path / "other.safetensors")
    against = f"{tower}:{tmp_path / 'other.safetensors'}"
    run("--model", tower, "--against", against, "--root", root, "--benchmarks", "zeroshot", "--out", tmp_path)
    found = facts_of(tmp_path)
    assert found["labels"] == {"before": against, "after": tower}
    (row,) = (row for one in found["benchmarks"] for row in one["rows"] if row["name"] == "zeroshot.circles.top1")
    assert row["difference"]["won"] + row["difference"]["lost"] > 0 and "p_holm" in row["difference"]


def test_both_activations_show_the_damage_and_the_wrong_one_is_refused(root: Path, tmp_path: Path) -> None:
    quick = tmp_path / "quick"
    quick.mkdir()
    (quick / clip.CONFIG).write_text(json.dumps(TOWER | {"model_cfg": TOWER["model_cfg"] | {"quick_gelu": True}}))
    asked = ("--model", quick, "--root", root, "--benchmarks", "sugarcrepe")
    run(*asked, "--activation", "both", "--rows", tmp_path / "rows", "--out", tmp_path)
    assert facts_of(tmp_path)["labels"] == {"before": "quick_gelu, as trained", "after": "gelu"}
    rows = pq.read_table(tmp_path / "rows").to_pylist()
    as_trained, wrong = ([r["similarities"] for r in rows if r["model"] == name] for name in ("before", "after"))
    assert as_trained != wrong
    with pytest.raises(UserError, match="trained with activation 'quick_gelu' and would be used with 'gelu'"):
        run(*asked, "--activation", "gelu")
    with pytest.raises(UserError, match="--activation both and --against"):
        run(*asked, "--activation", "both", "--against", str(quick))


@pytest.mark.slow
def test_both_activations_of_a_checkpoint_that_says_neither(root: Path, tmp_path: Path) -> None:
    """As open_clip's trainer writes them, DeGLA's own weights among them: an epoch, and tensors called module.*."""
    network = clip.load("ViT-B-32", seed=1).model
    tensors = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"epoch": 5, "name": "degla", "state_dict": tensors}, tmp_path / "degla.pt")
    asked = ("--model", "ViT-B-32", "--pretrained", tmp_path / "degla.pt", "--benchmarks", "sugarcrepe")
    run(*asked, "--root", root, "--no-blind", "--activation", "both", "--out", tmp_path / "page")
    found = facts_of(tmp_path / "page")
    assert found["labels"] == {"before": "quick_gelu", "after": "gelu"}
    with pytest.raises(UserError, match="does not say whether it was trained with GELU or QuickGELU"):
        run(*asked, "--root", root, "--no-blind")


def test_kept_embeddings_are_used_again_by_the_same_model_only(tower: str, root: Path, tmp_path: Path) -> None:
    asked = ("--model", tower, "--root", root, "--benchmarks", "sugarcrepe", "--no-blind", "--work", tmp_path)
    first = run(*asked)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    assert kept and run(*asked) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")} == kept
    run(*asked, "--seed", "5")
    assert len(list(tmp_path.rglob("*.npy"))) == 2 * len(kept), "random weights of another seed are another model"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "eval: no folder of benchmarks is given; .*--root, or \\$DEGLA_BENCHMARKS"),
        (("--root", "/nowhere"), "eval: there is no folder /nowhere"),
        (("--root", ".", "--benchmarks", "sugar"), "evaluate: there is no benchmark 'sugar'"),
    ],
)
def test_mistakes_are_one_line(
    tower: str, words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEGLA_BENCHMARKS", raising=False)
    with pytest.raises(UserError, match=message):
        run("--model", tower, *words)


def test_weights_of_another_architecture_are_one_line(tower: str, root: Path, tmp_path: Path) -> None:
    config = json.loads(json.dumps(TOWER))
    config["model_cfg"]["text_cfg"]["width"] = 64
    (tmp_path / clip.CONFIG).write_text(json.dumps(config))
    clip.save_weights(clip.load(str(tmp_path)).model, tmp_path / "wide.safetensors")
    with pytest.raises(UserError, match="cannot load") as error:
        run("--model", tower, "--pretrained", tmp_path / "wide.safetensors", "--root", root)
    assert "\n" not in str(error.value)
