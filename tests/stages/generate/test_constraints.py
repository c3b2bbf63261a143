import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.negative_types import NEGATIVE_TYPES
from stages.generate import Config
from stages.generate.constraints import constrained, is_constrained
from stages.generate.prompts import prompts_of
from stages.generate.responses import sources
from stages.language_models.base import LINE, Request
from stages.language_models.vllm import VllmBackend
from tests.stages.generate.canned import captions, pairs, read, work
from tests.stages.generate.test_backends import tiny_llama
from tests.stages.language_models.serving import Answer, completion, serving


def allowed(kind: str, caption: str, seed: int = 0) -> Any:
    (request,) = constrained(kind, [Request(caption, 0, seed, 99)])
    return request.allowed


def may_be_written(kind: str, caption: str, text: str) -> bool:
    return bool(re.fullmatch(allowed(kind, caption)["regex"], text))


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("A brown cat sits on an old chair.", True),
        ("A brown polar bear sits on an old chair.", False),
        ("A brown of sits on an old chair.", False),
        ("A brown dog sits on an old table.", True),
        ("A brown dog sits on an old chair.", False),
        ("A brown dogs sits on an old chair.", False),
        ("A brown small dog sits on an old chair.", False),
        ("A brown very big cat sits on an old chair.", False),
        ("A brown cat sits on an old table.", False),
        ("A white dog sits on an old chair.", False),
        ("A brown cat sits on an old chair", False),
        ("A brown cat stands on an old chair.", False),
    ],
)
def test_one_noun_alone_may_become_another(text: str, may: bool) -> None:
    assert may_be_written("replace_nouns", "A brown dog sits on an old chair.", text) == may


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("A brown dog sits on a new chair.", True),
        ("An orange dog sits on an old chair.", True),
        ("A brown dog sits on an old chair.", False),
        ("A brown dog sits on an older chair.", False),
        ("A brown cat sits on an old chair.", False),
        ("A very big dog sits on an old chair.", False),
    ],
)
def test_one_describing_word_alone_may_become_another_with_its_article(text: str, may: bool) -> None:
    assert may_be_written("replace_adjectives", "A brown dog sits on an old chair.", text) == may


def test_a_compound_is_replaced_whole() -> None:
    caption = "A fire truck drives along a street."
    assert may_be_written("replace_nouns", caption, "A polar bear drives along a street.")
    assert may_be_written("replace_nouns", caption, "An ambulance drives along a street.")
    assert not may_be_written("replace_nouns", caption, "A dump truck drives along a street.")
    assert not may_be_written("replace_nouns", caption, "A very big bear drives along a street.")


def test_a_capital_and_signs_of_patterns_stay() -> None:
    caption = "Dogs (two of them) chase a ball + a stick."
    assert may_be_written("replace_nouns", caption, "Cats (two of them) chase a ball + a stick.")
    assert not may_be_written("replace_nouns", caption, "cats (two of them) chase a ball + a stick.")
    assert not may_be_written("replace_nouns", caption, "Cats two of them chase a ball + a stick.")


def test_what_moves_is_a_proposal_of_the_rules() -> None:
    caption = "A dog chases a cat."
    assert allowed("swap_nouns", caption) == {"choice": ["A cat chases a dog."]}
    red = allowed("swap_adjectives", "A red cup stands on a blue table.")
    assert red == {"choice": ["A blue cup stands on a red table."]}
    three = "A small boy throws a red ball to a black dog."
    assert len(allowed("reshuffle_order", three)["choice"]) > 2
    assert allowed("reshuffle_order", three, seed=1)["choice"] != []


@pytest.mark.parametrize(
    "caption", ["Running and jumping.", "Ein Hund jagt eine Katze auf der Wiese.", "A dog\nand a cat."]
)
def test_where_the_rules_see_nothing_any_line_may_be_written(caption: str) -> None:
    assert all(allowed(kind, caption) is None for kind in NEGATIVE_TYPES)


def test_only_what_has_constraints_of_its_own_is_asked_anew(tmp_path: Path) -> None:
    def asked(structured: bool | str) -> dict[str, dict[str, Any]]:
        config = Config(backend="openai", model="m", structured=structured, paraphrases=True)
        return sources(config, prompts_of(config), {"pairs": pairs(tmp_path, captions(2))})

    line = asked(True)
    for structured in ("slot", "choice", "both"):
        changed = {kind for kind, source in asked(structured).items() if source != line[kind]}
        assert changed == {kind for kind in line if is_constrained(structured, kind)}
    assert all("constraints" not in source for source in line.values())
    assert {kind for kind in line if is_constrained("slot", kind)} == {"replace_nouns", "replace_adjectives"}
    assert {kind for kind in line if is_constrained("both", kind)} == set(NEGATIVE_TYPES)


def test_a_model_that_heeds_no_constraint_is_given_none() -> None:
    with pytest.raises(ValidationError, match="structured=slot needs backend vllm or openai; got rules"):
        Config(backend="rules", structured="slot")
    with pytest.raises(ValidationError):
        Config(structured="slots")
    assert Config().identity()["structured"] is True  # and so artifacts that are there stay


def test_a_server_gets_the_constraint_of_each_caption_and_what_it_then_writes_passes(tmp_path: Path) -> None:
    def answer(caption: str, before: int) -> Answer:
        told = bodies[-1]["structured_outputs"]
        if "choice" in told:
            return 200, {}, completion(told["choice"][-1])
        words = caption.split()
        texts = [caption.replace(f" {word} ", f" {new} ") for word in words[1:] for new in ("zebra", "pink")]
        return (
            200,
            {},
            completion(next(text for text in texts if re.fullmatch(told["regex"], text) and text != caption)),
        )

    rows = captions(6)
    with serving(answer) as (url, bodies):
        settings: dict[str, Any] = {
            "backend": "openai",
            "model": "m",
            "base_url": url,
            "concurrency": 1,
            "repair_attempts": 0,
            "max_reject_rate": 1.0,
        }
        out, _ = work(tmp_path, rows, **settings, structured="both")
        told = [body["structured_outputs"] for body in bodies]
        assert len(told) == 5 * len(rows) and {"regex": LINE} not in told
        bodies.clear()
        work(tmp_path, rows, "slots", **settings, structured="slot")
        again = [body["structured_outputs"] for body in bodies]
    assert [row["status"] for row in read(out)] == ["accepted"] * 5 * len(rows)
    assert again == [{"regex": LINE}] * 3 * len(rows)  # replacements are there already


@pytest.mark.vllm
def test_the_real_engine_writes_only_what_each_request_allows(tmp_path: Path) -> None:
    """A random model, which without a constraint writes noise."""
    pytest.importorskip("vllm")
    config = Config(model=str(tiny_llama(tmp_path / "model")), structured="both", temperature=1.0)
    texts = ["A brown dog sits on an old chair.", 'Two cats on "the mat" (a café \\ 50% #1).', "Running and jumping."]
    asked = [Request(text, 0, seed, 250) for seed, text in enumerate(texts)]
    engine = VllmBackend().open(config, lambda _: [], tmp_path / "engine.log")
    try:
        prefix = [{"role": "system", "content": "Rewrite."}]
        for kind in NEGATIVE_TYPES:
            requests = constrained(kind, asked)
            for request, response in zip(requests, engine.respond(kind, prefix, requests), strict=True):
                assert response.error is None, response.error
                told = request.allowed or {"regex": LINE}
                if "choice" in told:
                    assert response.text in told["choice"]
                elif response.finish_reason == "stop":
                    assert re.fullmatch(told["regex"], str(response.text)), (kind, response.text)
    finally:
        engine.close()
