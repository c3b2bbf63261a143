"""What a run would make and take, over a finished tiny run whose times are set by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.forecast import forecast
from pipeline.artifact import MANIFEST, read_manifest
from stages.road import Run
from tests.pipeline.test_run import finished, home, opened

__all__ = ["finished", "home"]


def told(run: Run) -> dict[str, dict[str, Any]]:
    return {one["stage"]: one for one in forecast(run)}


def rewrite(home: Path, kind: str, **changes: Any) -> None:
    """Say otherwise in a manifest of the run `tiny`."""
    folder = (home / "tiny" / kind).resolve()
    manifest = read_manifest(folder)
    assert manifest is not None
    (folder / MANIFEST).write_text(manifest.model_copy(update=changes).sealed().model_dump_json())


def test_what_is_current_is_reused_and_costs_nothing(home: Path, tiny_recipe: Path) -> None:
    found = told(opened(home, tiny_recipe))
    assert {one["action"] for one in found.values()} == {"reuse"}
    assert all("seconds" not in one and one["reasons"] == () for one in found.values())


def test_time_grows_with_the_work_and_names_what_it_was_measured_by(home: Path, tiny_recipe: Path) -> None:
    rewrite(home, "model", started="2026-01-01T00:00:00+00:00", finished="2026-01-01T00:01:40+00:00")
    found = told(opened(home, tiny_recipe, "train.epochs=3"))
    train = found["train"]
    assert train["action"] == "make" and train["reasons"] == ("config.epochs: 1 -> 3",)
    assert train["seconds"] == pytest.approx(300) and train["unit"] == "pairs times epochs"
    manifest = read_manifest(home / "tiny" / "model")
    assert manifest is not None and train["measured"]["artifact"] == f"model/{manifest.fingerprint}"
    assert train["amount"] == 3 * manifest.meta["pairs"] and train["memory_mib"] > 50 and train["bytes"] > 0
    assert found["evaluate"]["seconds"] is not None and found["assemble"]["action"] == "reuse"


def test_the_memory_of_a_step_grows_with_the_pairs_at_once_and_needs_no_measure(home: Path, tiny_recipe: Path) -> None:
    four, two = (
        told(opened(home, tiny_recipe, "train.lr=0.1", f"train.batch={batch}"))["train"]["device_memory"]
        for batch in (4, 2)
    )
    assert (four["pairs_at_once"], two["pairs_at_once"]) == (4, 2) and four["fixed_bytes"] == two["fixed_bytes"]
    activations = [one["bytes"] - one["fixed_bytes"] for one in (four, two)]
    assert activations[0] == pytest.approx(2 * activations[1], rel=1e-3) and activations[1] > 10**5
    anew = told(Run.open("new", recipe=str(tiny_recipe), home=home / "elsewhere"))["train"]
    assert anew["device_memory"]["pairs_at_once"] == 4, "also before there is a dataset"


@pytest.mark.parametrize("setting", ["train.batch=2", "train.model=data/clip_small"])
def test_other_work_or_another_machine_is_no_measure(home: Path, tiny_recipe: Path, setting: str) -> None:
    assert told(opened(home, tiny_recipe, setting))["train"]["seconds"] is None
    manifest = read_manifest(home / "tiny" / "model")
    assert manifest is not None
    rewrite(home, "model", hardware={**manifest.hardware, "cores": 1000})
    assert told(opened(home, tiny_recipe, "train.epochs=3"))["train"]["seconds"] is None


def test_another_clip_is_no_measure_of_its_evaluation(home: Path, tiny_recipe: Path) -> None:
    found = told(opened(home, tiny_recipe, "train.model=data/clip_small", "assemble.tokenizer=data/clip_small"))
    assert found["evaluate"]["seconds"] is None and found["report"]["seconds"] is not None


def test_responses_that_are_missing_are_counted_and_priced(home: Path, tiny_recipe: Path) -> None:
    manifest = read_manifest(home / "tiny" / "negatives")
    assert manifest is not None
    paid = {kind: one | {"seconds": 36.0, "prompt_tokens": 900, "reply_tokens": 100}
            for kind, one in manifest.meta["paid"].items()}  # fmt: skip
    rewrite(home, "negatives", meta={**manifest.meta, "paid": paid})
    settings = ["generate.price_per_hour=100", "generate.shard_size=10"]
    cached = told(opened(home, tiny_recipe, *settings))["generate"]
    assert cached["action"] == "make" and set(cached["missing"].values()) == {0}
    assert (cached["seconds"], cached["money"], cached["tokens"]) == (0, 0, 0)
    replies = next((home / "replies" / "swap_nouns").glob("*/*.parquet"))
    replies.unlink()
    lacking = told(opened(home, tiny_recipe, *settings))["generate"]
    captions = lacking["captions"]
    assert lacking["missing"]["swap_nouns"] == captions == 24 and lacking["missing"]["replace_nouns"] == 0
    assert lacking["shards"] == 4
    asked = sum(one["replies"] for one in paid.values())
    assert lacking["seconds"] == pytest.approx(captions / asked * 5 * 36)
    assert lacking["money"] == pytest.approx(lacking["seconds"] / 36) and lacking["tokens"] == round(
        captions / asked * 5000
    )
    anew = told(opened(home, tiny_recipe, *settings, "ingest.max_words=50"))["generate"]
    assert set(anew["missing"].values()) == {captions}, "of pairs that are made again, all"


def test_what_another_run_made_is_taken_from_the_store(home: Path, tiny_recipe: Path) -> None:
    found = told(Run.open("twin", recipe=str(tiny_recipe), home=home))
    assert [one["action"] for one in found.values()] == ["take from the store"] * 5 + ["make"]


def test_a_forecast_is_plain_data_and_changes_nothing(home: Path, tiny_recipe: Path) -> None:
    before = sorted(path for path in home.rglob("*"))
    json.dumps(forecast(opened(home, tiny_recipe, "ingest.max_words=50")))
    assert sorted(path for path in home.rglob("*")) == before
