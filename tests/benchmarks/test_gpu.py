"""The benchmark of a GPU, on the CPU and at a tiny size: it compares before it measures, and its table adds up."""

from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from pipeline import clip
from stages.train.config import Config
from tests.stages.training import small_clip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> clip.Clip:
    return clip.load(small_clip(tmp_path_factory.mktemp("model")))


def test_it_says_equality_a_row_per_step_and_what_the_loader_feeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--device", "cpu", "--precision", "fp32", "--batch", "4", "6", "--seconds", "0.01", "--images", "8"]
    gpu.main([*words, "--workers", "0", "--peak-tflops", "0.1", "--model", small_clip(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "peak 0.1 TFLOP/s (as told)" and lines[2].startswith("equal: loss ")
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines[5:13]]
    kinds = ["released", "padded", "cut", "tree"]
    assert [cell[:2] for cell in cells] == [[batch, kind] for batch in ("4", "6") for kind in kinds]
    assert all(float(cell[2].replace(",", "")) > 0 for cell in cells) and cells[0][3] == "1.00"
    assert [line.split(":")[0] for line in lines[13:]] == [
        f"fed by 0 processes, images {how}" for how in ("decoded each time", "kept")
    ]


def test_the_steps_are_compared_and_count_less_work_from_one_to_the_next(
    model: clip.Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gpu.compare(model.model, (16, 16), "cpu").startswith("equal")
    steps = gpu.steps_of(model.model, Config(batch=6, warmup=0), "cpu")
    rows = gpu.measure(steps, [gpu.batch_of(6, (16, 16), 0)], 0.01, "cpu")
    flop = {row.name: row.flop for row in rows}
    assert flop["released"] == flop["padded"] > 2 * flop["cut"] > 2 * flop["tree"] > 0
    lines = gpu.table(rows, peak=1e12)
    share = float(lines[-1].split("|")[6].strip("% ")) / 100
    assert share == pytest.approx(rows[-1].flop * rows[-1].pairs_per_s / 6 / 1e12, abs=1e-3)
    loss = gpu.PerType.loss
    monkeypatch.setattr(gpu.PerType, "loss", lambda *given: 1.01 * loss(*given))
    with pytest.raises(AssertionError, match="the steps differ"):
        gpu.compare(model.model, (16, 16), "cpu")


def test_what_does_not_fit_is_a_line_of_its_own() -> None:
    def full(batch: gpu.Batch) -> float:
        raise torch.OutOfMemoryError

    rows = gpu.measure({"released": full, "tree": lambda batch: 0.0}, [gpu.batch_of(4, (16, 16), 0)], 0.001, "cpu")
    assert "| 4 | released | out of memory | | | | | |" in gpu.table(rows, 1e12)
