"""The benchmark of a GPU, on the CPU and at a tiny size: it compares before it measures, and its table adds up."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu, gpu_engine
from pipeline import clip
from stages.train.config import Config
from tests.stages.training import small_clip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> clip.Clip:
    return clip.load(small_clip(tmp_path_factory.mktemp("model")))


def test_equality_comes_first_and_every_figure_is_a_row_of_one_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def served(shape: gpu_engine.Shape, folder: Path, seconds: float, most: float) -> Any:
        asked.update(shape=shape, seconds=seconds, most=most)
        return [gpu_engine.Served(way.name, 2.0, 100, 10, 16) for way in gpu_engine.WAYS]

    monkeypatch.setattr(gpu_engine, "served", served)  # it has tests of its own
    words = ["--device", "cpu", "--precision", "fp32", "--batch", "4", "6", "--seconds", "0.01", "--images", "8"]
    more = ["--workers", "0", "--peak-tflops", "0.1", "--gbytes", "2", "--model", small_clip(tmp_path)]
    gpu.main([*words, *more, "--shape", "2", "64", "64", "2", "1", "600", "--request-seconds", "1"])
    limits, equal, *lines, goals, took = capsys.readouterr().out.splitlines()
    assert limits == "limits: 0.1 TFLOP/s (as told), 2 GB/s (as told)"
    assert equal.startswith("ours equals released: ") and took.endswith(" s in all")
    assert asked["shape"].vocabulary == 600 and 0 < asked["most"] < gpu.MOST_S
    title, rule, *cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    assert str(date.today()) in title[0] and "CPU" in title[0] and all(len(cell) == 6 for cell in [title, rule, *cells])
    kinds = ["released", "padded", "cut", "tree"]
    assert [cell[0] for cell in cells[:8]] == [f"{kind}, batch {batch}" for batch in (4, 6) for kind in kinds]
    assert all(float(cell[1].removesuffix(" pairs/s").replace(",", "")) > 0 for cell in cells[:10])
    assert cells[0][2] == "1.00" and "decoded each time" in cells[8][0] and "kept" in cells[9][0]
    share = 2 / gpu_engine.limit(asked["shape"], gpu_engine.Served("", 2.0, 100, 10, 16), 1e11, 2e9, 4)
    assert [cell[1:5] for cell in cells[10:]] == [["2.0 requests/s", "1.00", "", f"{share:.1%}"]] * 4
    assert goals.count("met") + goals.count("missed") == 4


def test_the_steps_are_compared_and_count_less_work_from_one_to_the_next(
    model: clip.Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gpu.compare(model.model, (16, 16), "cpu").startswith("ours equals")
    steps = gpu.steps_of(model.model, Config(batch=6, warmup=0), "cpu")
    rows = gpu.measure(steps, [gpu.batch_of(6, (16, 16), 0)], 0.01, "cpu")
    flop = {row.name: row.flop for row in rows}
    assert flop["released"] == flop["padded"] > 2 * flop["cut"] > 2 * flop["tree"] > 0
    lines = gpu.table("title", rows, peak=1e12)
    share = float(lines[-1].split("|")[4].strip("% ")) / 100
    assert share == pytest.approx(rows[-1].flop * rows[-1].pairs_per_s / 6 / 1e12, abs=1e-3)
    loss = gpu.PerType.loss
    monkeypatch.setattr(gpu.PerType, "loss", lambda *given: 1.01 * loss(*given))
    with pytest.raises(AssertionError, match="the steps differ"):
        gpu.compare(model.model, (16, 16), "cpu")


def test_what_does_not_fit_is_a_line_of_its_own() -> None:
    def full(batch: gpu.Batch) -> float:
        raise torch.OutOfMemoryError

    rows = gpu.measure({"released": full, "tree": lambda batch: 0.0}, [gpu.batch_of(4, (16, 16), 0)], 0.001, "cpu")
    assert "| released, batch 4 | out of memory |  |  |  |  |" in gpu.table("title", rows, 1e12)


def test_a_goal_is_told_at_the_largest_batch_that_all_steps_could_take() -> None:
    rates = {256: {"released": 100.0, "padded": 110.0, "tree": 280.0}, 1024: {"released": 0.0, "tree": 900.0}}
    rows = [gpu.Row(batch, name, rate, 1e12, 0) for batch, found in rates.items() for name, rate in found.items()]
    told = gpu.goals(rows, peak=2e12, of_limit=0.51)
    assert "MFU of the tree 54.7% (>= 30.0%: met)" in told and "of the padded step 2.55 (>= 2.50: met)" in told
    assert "of the released step 2.80 (>= 3.00: missed)" in told and "requests 51.0% (>= 50.0%: met)" in told
    assert gpu.goals(rows[3:], 1e12, None) == "goals: "


def test_limits_are_the_data_sheet_s_where_the_gpu_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    assert gpu.limits_of("cuda", "bf16", None, None) == (
        989e12, 4.8e12, "limits: 989 TFLOP/s (data sheet), 4,800 GB/s (data sheet)"
    )  # fmt: skip
    assert gpu.limits_of("cuda", "bf16", 500, 1000)[:2] == (500e12, 1e12)
    assert all(figure > 0 for figure in gpu.limits_of("cpu", "fp32", None, None)[:2])
    assert gpu.PEAKS.keys() == gpu.BANDWIDTHS.keys()


def test_a_machine_without_vllm_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None)
    assert gpu.requests(gpu_engine.LLAMA_8B, "cpu", (1e12, 1e12), 1.0, 10.0) == (
        [], "requests: not measured, as vLLM is not installed", None
    )  # fmt: skip
