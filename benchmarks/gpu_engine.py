"""Requests of a second of a language model that writes negatives, as a share of what the GPU allows; part of gpu.py.

vLLM serves the shape of an 8B model with weights of no meaning, as the generate stage has it (`_Loaded`): a shared
prefix of examples, a caption of its own, a reply of `REPLY` tokens. Each way of asking differs from the first in one
thing. The engine is a process of its own.

The limit is 1 / (FLOP / peak + bytes of keys and values / bandwidth) of one request: its reply and what is not
shared of its prompt are computed once, and every forward pass reads the keys and values of all that stands before. It
leaves out what is read once for many requests: the weights.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from benchmarks.stand_ins import captions, chat_tokenizer
from stages.generate import prompts
from stages.language_models.base import Message, Request

REPLY = 16
"""Tokens of a reply: a caption's. Weights of no meaning hardly ever say the end."""

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_HOST_IP": "127.0.0.1",
}


class Shape(NamedTuple):
    """A Llama: layers, width, width inside a layer, heads, heads of keys and values, tokens it knows."""

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    vocabulary: int


LLAMA_8B = Shape(32, 4096, 14_336, 32, 8, 128_256)


class Way(NamedTuple):
    """A way of asking."""

    name: str
    examples: int = 50
    seeds: bool = True
    grammar: bool = True


WAYS = (
    Way("50 examples, own seeds, grammar"),
    Way("without seeds", seeds=False),
    Way("without grammar", grammar=False),
    Way("16 examples", examples=16),
)


class Served(NamedTuple):
    """Requests per second of a way of asking, and the mean tokens of a request: shared, its own, its reply's."""

    name: str
    requests_per_s: float
    shared: float
    own: float
    reply: float


def flop_and_bytes(shape: Shape, asked: Served, bytes_each: int) -> tuple[float, float]:
    """What one request computes, and what it reads of keys and values of `bytes_each` bytes a number."""
    width = shape.hidden // shape.heads
    of_layer = shape.hidden * width * (2 * shape.heads + 2 * shape.kv_heads) + 3 * shape.hidden * shape.inner
    computed = asked.own + asked.reply - 1  # the last token is only written
    places = computed * (asked.shared + (computed + 1) / 2)  # that all of these look at
    matrices = computed * of_layer * shape.layers + asked.reply * shape.hidden * shape.vocabulary
    flop = 2 * matrices + 4 * places * shape.hidden * shape.layers
    before = asked.shared + asked.own
    seen = asked.shared + (asked.reply - 1) * (before + asked.reply / 2)
    return flop, seen * 2 * shape.layers * shape.kv_heads * width * bytes_each


def limit(shape: Shape, asked: Served, peak: float, bandwidth: float, bytes_each: int = 2) -> float:
    """Requests per second that cannot be passed: FLOP per second and bytes per second as given."""
    flop, read = flop_and_bytes(shape, asked, bytes_each)
    return 1 / (flop / peak + read / bandwidth)


def served(
    shape: Shape, folder: Path, seconds: float, most: float, trial: int = 128, ways: Sequence[Way] = WAYS
) -> list[Served]:
    """What each way of asking reaches.

    Args:
        shape: of the model.
        folder: an empty one, for model and logs.
        seconds: for each way of asking, twice.
        most: seconds for all of it.
        trial: captions of a first call, by which it is found how many make so many seconds.
        ways: of asking.

    Raises RuntimeError, with the end of its log, when the engine fails or takes longer.
    """
    write_model(shape, folder / "model")
    task = {"model": str(folder / "model"), "seconds": seconds, "trial": trial, "ways": ways}
    return [Served(*row) for row in _engine(folder, task, most)]


def write_model(shape: Shape, folder: Path) -> None:
    """Tokenizer and configuration; no weights."""
    from transformers import LlamaConfig

    told = [message["content"] for kind in ("swap_nouns", "replace_nouns") for message in _prefix(kind, 50)]
    chat_tokenizer([*told, *captions(500)], shape.vocabulary).save_pretrained(folder)
    LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=8192,
        eos_token_id=0,
        bos_token_id=None,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    ).save_pretrained(folder)


def _prefix(kind: str, examples: int) -> list[Message]:
    return prompts.load("english", [kind], examples)[kind].prefix


def _engine(folder: Path, task: dict[str, Any], most: float) -> Any:
    """A task done by an engine in a process of its own."""
    told, found, log = (folder / name for name in ("task.json", "found.json", "engine.log"))
    told.write_text(json.dumps(task))
    with log.open("w") as output:
        try:
            code = subprocess.run(
                [sys.executable, "-c", f"import sys; from {__name__} import main; main(*sys.argv[1:])", told, found],
                stdout=output, stderr=subprocess.STDOUT, timeout=most, check=False,
                env={**os.environ, **ENVIRONMENT},
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"the engine took more than {most:.0f} s") from None
    if code:
        raise RuntimeError("\n".join(["the engine failed:", *log.read_text(errors="replace").splitlines()[-20:]]))
    return json.loads(found.read_text())


# -- the engine's process ----------------------------------------------------------------------------------------------


class _Heard:
    """Takes what the engine would send to the stage."""

    def __init__(self) -> None:
        self.responses: dict[int, Any] = {}

    def send(self, message: tuple[str, dict[int, Any]]) -> None:
        self.responses |= message[1]


class _Asker:
    """The generate stage's own engine, asked in ways that the stage has no setting for."""

    def __init__(self, model: str) -> None:
        from stages.language_models.vllm import _Loaded

        self.loaded: Any = _Loaded(
            _Heard(),  # type: ignore[arg-type]
            model=model,
            revision=None,
            sampling={"temperature": 0.7, "top_p": 0.9, "n": 1},
            seed=42,
            structured=True,
            chat_template={},
            settings={"load_format": "dummy"},
        )
        self.sampling = self.loaded._sampling
        self.asked = 0

    def ask(self, way: Way, texts: Sequence[str]) -> tuple[list[Any], float]:
        """Responses and seconds."""
        left_out = () if way.grammar else ("structured_outputs",)
        self.loaded._sampling = {name: value for name, value in self.sampling.items() if name not in left_out}
        self.loaded._pipe = _Heard()
        seeds: list[Any] = list(range(len(texts))) if way.seeds else [None] * len(texts)
        requests = [Request(text, 0, seed, REPLY) for text, seed in zip(texts, seeds, strict=True)]
        prefix, begun = _prefix("swap_nouns", way.examples), time.perf_counter()
        self.loaded.respond(prefix, requests)
        seconds = time.perf_counter() - begun
        found = [self.loaded._pipe.responses[place] for place in range(len(texts))]
        if failed := next((one.error for one in found if one.error), None):
            raise RuntimeError(failed)
        return found, seconds

    def fresh(self, count: int) -> list[str]:
        """Captions that were not asked before."""
        self.asked += 1
        return captions(count, self.asked)

    def shared(self, way: Way) -> int:
        """Tokens that all prompts begin with."""
        from stages.language_models.chat import encode

        chats = [[{"role": "user", "content": text}] for text in ("A cat.", "Two dogs.")]
        one, other = encode(self.loaded._tokenizer, _prefix("swap_nouns", way.examples), chats, {})
        return next(place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)

    def rates(self, ways: Sequence[Way], seconds: float, trial: int) -> list[Served]:
        """What each way reaches; they take turns, twice."""
        counts, total = [], [0.0] * len(ways)
        responses: list[list[Any]] = [[] for _ in ways]
        for way in ways:
            self.ask(way, self.fresh(trial // 8))  # the prefix is computed, the grammar compiled
            _, took = self.ask(way, self.fresh(trial))
            counts.append(min(max(trial, int(trial * seconds / took)), 20_000))
        for _ in range(2):
            for place, (way, count) in enumerate(zip(ways, counts, strict=True)):
                found, spent = self.ask(way, self.fresh(count))
                responses[place] += found
                total[place] += spent
        rows = []
        for way, found, spent in zip(ways, responses, total, strict=True):
            shared = self.shared(way)
            own = fmean(one.prompt_tokens for one in found) - shared
            rows.append(Served(way.name, len(found) / spent, shared, own, fmean(one.reply_tokens for one in found)))
        return rows


def main(told: str, found: str) -> None:
    task = json.loads(Path(told).read_text())
    asker = _Asker(task["model"])
    rows = asker.rates([Way(*way) for way in task["ways"]], task["seconds"], task["trial"])
    Path(found).write_text(json.dumps(rows))
    asker.loaded.llm.llm_engine.engine_core.shutdown()
