import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipeline.stage import silent
from stages.generate import Config
from stages.generate.backends import BACKENDS, is_paid
from stages.generate.candidates import Work
from stages.generate.prompts import prompts_of
from stages.generate.responses import caption_key
from stages.language_models.base import Backend, Corpus, Request, Response, Settings
from tests.listening import LOOPBACK, listening
from tests.paths import ROOT
from tests.stages.generate.canned import captions, pairs, read, work


def test_importing_the_table_imports_no_heavy_package() -> None:
    heavy = {"torch", "open_clip", "textblob", "matplotlib", "scipy", "sklearn", "vllm", "transformers", "httpx"}
    code = f"import sys, stages.generate; print(*({heavy} & sys.modules.keys()))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


def test_an_unknown_backend_is_rejected_with_the_names_of_all() -> None:
    with pytest.raises(ValidationError, match="one of vllm, openai, rules, ranked, replay, given"):
        Config(backend="telepathy")


@pytest.mark.parametrize(
    ("backend", "name", "prompt", "paid"),
    [
        ("vllm", "vllm:m", True, True),
        ("openai", "openai:m", True, True),
        ("rules", "rules", False, False),
        ("ranked", "ranked:m", False, True),
        ("replay", "replay", False, False),
        ("given", "given", False, False),
    ],
)
def test_what_the_stage_asks_a_backend(backend: str, name: str, prompt: bool, paid: bool) -> None:
    config = Config(backend=backend, model="m") if BACKENDS[backend].has_model else Config(backend=backend)
    assert BACKENDS[backend].name(config) == name
    assert all(bool(found) == prompt for found in prompts_of(config).values())
    assert is_paid(backend) == paid


def test_responses_of_a_backend_that_is_gone_count_as_paid() -> None:
    assert is_paid("telepathy")


class Shouting(Backend):
    """A backend of one's own: the caption in capitals."""

    needs_prompt = False

    def identity(self, settings: Settings) -> str:
        return "shouting 1"

    def open(self, settings: Settings, corpus: Corpus, log: Path) -> "Shouting":
        return self

    def respond(self, kind: str, prefix: Any, requests: Sequence[Request]) -> list[Response]:
        return [Response(request.caption.upper(), "stop") for request in requests]

    def facts(self) -> dict[str, Any]:
        return {"volume": 11}

    def close(self) -> None:
        pass


def test_a_backend_of_one_s_own_is_a_class_and_a_line_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKENDS, "shouting", Shouting())
    settings: dict[str, Any] = {"backend": "shouting", "types": ["swap_nouns"], "max_reject_rate": 1.0}
    out, meta = work(tmp_path, captions(4), **settings)
    assert {(row["model"], row["reason"]) for row in read(out)} == {("shouting", "identical")}
    assert meta["generator"] == {"volume": 11}
    about = json.loads(next(tmp_path.glob("replies/*/*/about.json")).read_text())
    assert about == {"backend": "shouting", "model": "shouting 1", "seed": 42}


# -- the real engine ---------------------------------------------------------------------------------------------------


def tiny_llama(folder: Path) -> Path:
    """A random two-layer Llama with a byte-level tokenizer and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    roles = ["<|system|>", "<|user|>", "<|assistant|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        ["a dog"], trainers.BpeTrainer(vocab_size=300, special_tokens=["</s>", *roles], initial_alphabet=alphabet)
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", additional_special_tokens=roles)
    fast.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(fast), max_position_embeddings=512, eos_token_id=0, bos_token_id=None, **size)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.vllm
def test_vllm_answers_in_one_line_is_seeded_and_leaves_nothing_running(tmp_path: Path) -> None:
    """Starts the real engine, once, on a random model: what it says is noise, and the checks must say so."""
    pytest.importorskip("vllm")
    folder = tmp_path / "prompts"
    folder.mkdir()
    prompt = {"type": "swap_nouns", "rule": "Swap.", "examples": [{"caption": "a b", "negative": "b a"}] * 40}
    (folder / "swap_nouns.yaml").write_text(yaml.safe_dump(prompt))
    rows = [*captions(12), ("p", "a <|user|> dog"), ("p", "dog " * 300)]
    model = tiny_llama(tmp_path / "model")
    settings: dict[str, Any] = {
        "backend": "vllm", "model": str(model), "types": ["swap_nouns"], "prompts": str(folder),
        "examples_per_prompt": 40, "max_reject_rate": 1.0, "max_error_rate": 1.0, "temperature": 1.5, "top_p": 1.0,
        "samples": 2,
    }  # fmt: skip
    inputs, partial = {"pairs": pairs(tmp_path, rows)}, tmp_path / "store" / "negatives" / "f.partial"
    texts = ["a dog and a cat", "a cat", "dog " * 300]
    with Work(Config(**settings), inputs, partial, partial / ".work") as engine:
        engine.fill(silent)
        facts, logprobs = engine.facts, engine._model.likelihood(texts)  # type: ignore[attr-defined]
        if Path("/proc/net/tcp").exists():
            assert listening(engine._model._scorer._process.pid) <= LOOPBACK  # type: ignore[attr-defined]
    assert logprobs[:2] == pytest.approx(reference(model, texts[:2]), abs=1e-3) and logprobs[2] < logprobs[0]
    out, _ = work(tmp_path, rows, **settings)  # needs no engine: every reply is there
    found = read(out)
    assert len(found) >= 14 and {row["status"] for row in found} <= {"rejected", "accepted"}
    errors = [row["raw_reply"] for row in found if row["finish_reason"] == "error" and row["attempt"] == 0]
    assert len(errors) == 2 and any("special token" in error for error in errors) and any("exceed" in e for e in errors)
    said = [row for row in found if row["finish_reason"] != "error"]
    assert all(row["raw_reply"] and "\n" not in row["raw_reply"] for row in said)
    requests = {(row["pair_id"], row["attempt"] // 2) for row in said}
    asked = [row["prompt_tokens"] for row in said if row["prompt_tokens"]]
    assert len(asked) == len(requests) < len(said) and min(asked) > 200  # a prompt of two texts counts once
    assert not {"multi_line", "markup"} & {row["reason"] for row in said}  # structured output forbids them
    assert all(row["reply_tokens"] <= 16 + 30 for row in said)
    assert facts["vllm"] and facts["cached_tokens"] > 0
    assert len({row["raw_reply"] for row in said}) > len(said) // 2
    replay = {
        "backend": "replay",
        "model": str(as_replay(tmp_path, found)),
        "types": ["swap_nouns"],
        "max_error_rate": 1.0,
        "repair_attempts": 3,
    }
    out, _ = work(tmp_path, rows, "again", **replay, max_reject_rate=1.0)
    again = [row["raw_reply"] for row in read(out) if row["finish_reason"] != "error"]
    assert again == [row["raw_reply"] for row in said]
    commands = "".join(
        path.read_text(errors="replace") for path in Path("/proc").glob("[0-9]*/cmdline") if _readable(path)
    )
    assert str(tmp_path) not in commands


def reference(model: Path, texts: list[str]) -> list[float]:
    """Log-probability of each text, by the model's own code."""
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    llama, tokenizer, found = LlamaForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model), []
    for text in texts:
        ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]])
        with torch.no_grad():
            told = llama(ids).logits[0, :-1].log_softmax(-1)
        found.append(float(told.gather(1, ids[0, 1:, None]).sum()))
    return found


def as_replay(tmp_path: Path, found: list[dict[str, Any]]) -> Path:
    """What was said once, as a replay file: generations are data."""
    by_id = {caption_key(f"{image}\0{caption}"): caption for image, caption in [*captions(12), ("p", "a <|user|> dog")]}
    path = tmp_path / "said.jsonl"
    path.write_text(
        "\n".join(
            json.dumps({"type": row["type"], "caption": by_id[row["pair_id"]], "reply": row["raw_reply"],
                        "attempt": row["attempt"], "finish_reason": row["finish_reason"]})
            for row in found
            if row["finish_reason"] != "error"
        )
    )  # fmt: skip
    return path


def _readable(path: Path) -> bool:
    try:
        path.read_text(errors="replace")
    except OSError:
        return False
    return True
