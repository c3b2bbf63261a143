import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline import tables
from pipeline.negative_types import NEGATIVE_TYPES
from stages.generate import STAGE, Config
from stages.generate.prompts import prompts_of
from stages.generate.responses import ResponseCache, caption_key, sources
from stages.language_models.base import Request, Response
from tests.paths import ROOT
from tests.stages.generate.canned import pairs

FIRST, LAST = "0" * 16, "f" * 16


def cache(home: Path, source: dict[str, Any] | None = None) -> ResponseCache:
    return ResponseCache.of(home / "replies", "swap_nouns", source or {"backend": "vllm"}, home / "faults")


def fill(into: ResponseCache, *captions: str, attempt: int = 0, error: str | None = None, told: str = "") -> None:
    responses = [Response.failed(error) if error else Response(f"{caption}!", "stop", 7, 3) for caption in captions]
    into.add([Request(caption, attempt, 0, 9, told=told) for caption in captions], responses, 2.0)


def test_one_changed_byte_in_a_prompt_is_another_source_for_that_type_alone(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(ROOT / "data" / "prompts" / "english", folder)
    config = Config(backend="openai", model="m", prompts=str(folder))

    def told() -> dict[str, str]:
        return {kind: repr(source) for kind, source in sources(config, prompts_of(config), {}).items()}

    before, outside = told(), STAGE.outside(config)
    path = folder / "swap_nouns.yaml"
    data = yaml.safe_load(path.read_text())
    data["examples"][0]["caption"] += "!"
    path.write_text(yaml.safe_dump(data))
    after, outside_after = told(), STAGE.outside(config)
    assert [kind for kind in NEGATIVE_TYPES if before[kind] != after[kind]] == ["swap_nouns"]
    assert {name for name in outside if outside[name] != outside_after[name]} == {"prompt swap_nouns"}


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ({"backend": "openai", "model": "m"}, {"name", "temperature", "top_p", "chat_template", "reply", "prompt"}),
        (
            {"backend": "vllm", "model": "hub/name"},
            {"name", "temperature", "top_p", "chat_template", "reply", "prompt"},
        ),
        ({"backend": "rules"}, {"pairs", "lexicon"}),
        ({"backend": "replay", "model": __file__}, set()),
    ],
)
def test_a_source_holds_what_decides_a_response(tmp_path: Path, settings: dict[str, Any], facts: set[str]) -> None:
    config = Config(**settings, types=("swap_nouns",))
    found = sources(config, prompts_of(config), {"pairs": pairs(tmp_path, [("p", "A dog.")])})
    assert set(found) == {"swap_nouns"} and set(found["swap_nouns"]) == {"backend", "model", "seed", *facts}
    assert found["swap_nouns"]["backend"] == config.backend


def test_given_negatives_have_no_source() -> None:
    config = Config(backend="given")
    assert sources(config, prompts_of(config), {}) == {}


def test_what_was_added_is_found_by_key_attempt_and_what_was_told(tmp_path: Path) -> None:
    kept = cache(tmp_path)
    fill(kept, "a", "b")
    fill(kept, "a", attempt=1)
    fill(kept, "a", attempt=1, told="too long")
    one, other = caption_key("a"), caption_key("b")
    found = kept.find(FIRST, LAST)
    assert set(found) == {one, other}
    assert set(found[one]) == {(0, ""), (1, ""), (1, "too long")} and set(found[other]) == {(0, "")}
    assert found[other][0, ""] == Response("b!", "stop", 7, 3)
    low, high = sorted((one, other))
    assert set(kept.find(low, low)) == {low} and set(kept.find(high, LAST)) == {high}


def test_responses_of_a_version_that_told_nothing_are_found(tmp_path: Path) -> None:
    kept = cache(tmp_path)
    fill(kept, "a")
    (path,) = kept.folder.glob("*.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["told"]), path)
    assert kept.find(FIRST, LAST)[caption_key("a")][0, ""].text == "a!"


def test_the_same_responses_make_the_same_file(tmp_path: Path) -> None:
    kept = cache(tmp_path)
    fill(kept, "a", "b")
    before = {path: path.read_bytes() for path in kept.folder.glob("*.parquet")}
    fill(kept, "a", "b")
    assert {path: path.read_bytes() for path in kept.folder.glob("*.parquet")} == before and len(before) == 1


def test_failed_requests_are_kept_apart_and_a_response_wins_over_a_failure(tmp_path: Path) -> None:
    kept = cache(tmp_path)
    fill(kept, "a", error="busy")
    assert not list(kept.folder.glob("*.parquet"))
    assert kept.find(FIRST, LAST)[caption_key("a")][0, ""].error == "busy"
    fill(kept, "a")
    assert kept.find(FIRST, LAST)[caption_key("a")][0, ""].text == "a!"


def test_sources_are_told_apart_and_say_what_they_are(tmp_path: Path) -> None:
    one, other = cache(tmp_path), cache(tmp_path, {"backend": "vllm", "prompt": "é"})
    fill(one, "a")
    assert one.folder != other.folder and not other.find(FIRST, LAST)
    assert json.loads((other.folder / "about.json").read_text(encoding="utf-8")) == {"backend": "vllm", "prompt": "é"}


def test_what_the_captions_of_a_plan_took(tmp_path: Path) -> None:
    kept, plan = cache(tmp_path), tmp_path / "plan.parquet"
    pq.write_table(pa.table({"caption_key": [caption_key("a"), caption_key("a"), caption_key("c")]}), plan)
    assert kept.paid(plan) == {"replies": 0, "prompt_tokens": 0, "reply_tokens": 0, "seconds": 0.0}
    fill(kept, "a", "b")
    assert kept.paid(plan) == {"replies": 1, "prompt_tokens": 7, "reply_tokens": 3, "seconds": 1.0}
    assert tables.count(kept.folder) == 2


def test_a_claim_is_one_process_s_at_a_time(tmp_path: Path) -> None:
    kept = cache(tmp_path)
    with kept.claim("shard") as mine, kept.claim("shard") as again, kept.claim("other") as other:
        assert (mine, again, other) == (True, False, True)
    with kept.claim("shard") as mine:
        assert mine
