"""What every language model shares: requests and responses, the settings that name a model, and what a backend is.

A `Backend` is one way to reach a model (vllm.py, server.py, replay.py; `rules` and `given` are of the generate stage).
It has no state: it tells from the settings what makes a response, and opens the model. A `LanguageModel` takes requests
and gives responses, in order, as they come in. A fault of one request is an error in its own response; only what makes
every request fail (no engine, no server) raises.

A backend of one's own is a subclass of `Backend` in a module of its own, and a line in the table of the generate stage.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import Field, field_validator

from pipeline.config import LOCAL, Config, placement
from pipeline.stage import Inputs

LINE = r"[^\x00-\x1f\x7f*_#<>{}\[\]|\\~^=`]+"
"""What a response may look like: one line without control characters and markup. Fixed, so it is compiled once."""

FOREIGN = "language"
"""Finish reason of a response to a caption in a language that the writer does not know; there is no text then."""

FIXED: Mapping[str, Any] = {"date_string": "26 Jul 2024", "enable_thinking": False, "thinking": False}
"""Arguments every chat template gets: a response must not depend on the day it was asked for, and a model that can
think first answers at once. A template that knows none of them ignores them."""

Message = dict[str, str]
"""One turn of a chat: {"role": "system" | "user" | "assistant", "content": text}."""

Corpus = Callable[[int], Iterable[str]]
"""`corpus(limit)`: a random sample of at most `limit` of the distinct captions."""


class Settings(Config):
    """Which language model writes, how it samples, and where it runs; a stage's settings extend them."""

    backend: str = Field("vllm", description="who writes: a name of the table of backends")
    model: Annotated[str, LOCAL] = Field(
        "data/language_model",
        description="vllm: model folder or hub name; openai: the server's name of it; replay: the file; rules: none",
    )
    revision: str | None = Field(None, description="revision of a hub model")
    temperature: float = Field(0.7, ge=0, le=2, description="sampling temperature; 0 = greedy")
    top_p: float = Field(0.9, gt=0, le=1, description="nucleus sampling")
    seed: int = Field(42, ge=0, description="seed of all sampling")
    samples: int = Field(
        1,
        ge=1,
        le=16,
        description="vllm, openai: texts drawn together per request, sharing its prompt; of those that pass the checks "
        "the first is kept, where vllm puts that first whose likelihood is nearest to the caption's",
    )
    chat_template: dict[str, Any] = Field(
        {}, description="vllm, openai: arguments of the model's chat template; else a fixed date, and thinking off"
    )
    structured: bool | Literal["slot", "choice", "both"] = Field(
        True,
        description="let only one plain line be written, by vLLM's structured_outputs; slot: where a word is replaced, "
        "its caption with one place free; choice: where words move, one of the rules' proposals; both; off for servers "
        "that reject it, and for a model that writes nothing else anyway: a quarter less CPU time",
    )
    base_url: str = placement("http://127.0.0.1:8000/v1", description="openai: address of the server")
    concurrency: int = placement(64, ge=1, description="openai: requests at once")
    timeout: float = placement(120.0, gt=0, description="openai: seconds to wait for one response")
    workers: int = placement(
        1,
        ge=1,
        description="tasks that fill one run's responses together (DEGLA_TASK_RUNNER: where); engines on one machine's "
        "CPU share its cores",
    )
    engine: dict[str, Any] = placement(
        {}, description="vllm: further arguments of vllm.LLM (tensor_parallel_size, ...)"
    )

    @classmethod
    def located(cls, given: dict[str, Any], folder: Path) -> dict[str, Any]:
        """As every config; a server's name of its model is no path."""
        found = super().located(given, folder)
        return found | {"model": given["model"]} if given.get("backend") == "openai" and "model" in given else found

    @field_validator("base_url")
    @classmethod
    def _holds_no_secret(cls, base_url: str) -> str:
        if "@" in base_url or "?" in base_url:
            raise ValueError("an address alone: the key belongs into OPENAI_API_KEY, recipes and manifests are kept")
        return base_url

    @field_validator("chat_template")
    @classmethod
    def _leaves_the_chat_alone(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        if taken := _OF_THE_CHAT & arguments.keys():
            raise ValueError(f"{min(taken)} is no argument of a chat template that can be set")
        return arguments

    @field_validator("engine", "chat_template")
    @classmethod
    def _is_data(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        for name, value in _leaves(arguments):
            if name in ("trust_remote_code", "hf_token"):
                raise ValueError(f"{name} is not taken from a recipe: it runs a stranger's code, or is a secret")
            if isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w*([.:][A-Za-z_]\w*)+|.*\.py", value):
                raise ValueError(f"{name} = {value} names code; a recipe is data")
        return arguments


_OF_THE_CHAT = frozenset(
    ("messages", "conversation", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize", "padding",
     "continue_final_message", "truncation", "max_length", "return_tensors", "return_dict", "strftime_now",
     "return_assistant_tokens_mask", "tokenizer_kwargs")
)  # fmt: skip
"""Arguments of a tokenizer's `apply_chat_template` that say what the chat is, or what becomes of it."""


def _leaves(settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name and value of every setting, nested ones too; of a list each item."""
    for name, value in settings.items():
        for item in value if isinstance(value, list | tuple) else [value]:
            yield from _leaves(item) if isinstance(item, dict) else [(name, item)]


@dataclass(frozen=True, slots=True)
class Request:
    """One caption to rewrite.

    Attributes:
        caption: the caption.
        attempt: number of its first response: 0, or that of a repair.
        seed: of the sampling; fixed by caption, type and attempt.
        max_tokens: the response's cap.
        avoid: other captions of the same images; only the rules look at them.
        rejected: of a repair, the response that was rejected; "" where nothing is said about it.
        told: what is said about it.
        allowed: what alone may be written, as vLLM's structured_outputs: {"regex": pattern} or {"choice": texts}; None:
            what the settings say of all requests.
    """

    caption: str
    attempt: int
    seed: int
    max_tokens: int
    avoid: tuple[str, ...] = ()
    rejected: str = ""
    told: str = ""
    allowed: Mapping[str, Any] | None = None

    @property
    def turns(self) -> list[Message]:
        """The chat after the turns that all requests of a type share."""
        first = {"role": "user", "content": self.caption}
        if not self.told:
            return [first]
        return [first, {"role": "assistant", "content": self.rejected}, {"role": "user", "content": self.told}]


@dataclass(frozen=True, slots=True)
class Response:
    """What came back for one request: a text, or an error.

    Attributes:
        text: as it came; None with an error.
        finish_reason: stop, length, error, or FOREIGN.
        prompt_tokens: tokens of the prompt, None where nobody counts.
        reply_tokens: tokens of the text, likewise.
        error: one line, None when there is a text.
        others: further responses to the same request, each tried when those before it are rejected.
    """

    text: str | None
    finish_reason: str
    prompt_tokens: int | None = None
    reply_tokens: int | None = None
    error: str | None = None
    others: "tuple[Response, ...]" = ()

    @classmethod
    def failed(cls, error: str) -> "Response":
        """The response to a request that brought no text."""
        return cls(None, "error", None, None, " ".join(error.split())[:300])


class LanguageModel(Protocol):
    """Anything that responds to requests."""

    def respond(self, kind: str, prefix: list[Message], requests: Sequence[Request]) -> Iterable[Response]:
        """Responses in the order of the requests, all of one negative type and one prompt prefix, as they come in.

        Raises TransientError when the model is gone; what came before can be used.
        """

    def facts(self) -> dict[str, Any]:
        """What ran: version, hardware, figures of the engine."""

    def close(self) -> None:
        """Release everything: processes, memory, connections."""


@runtime_checkable
class Scorer(Protocol):
    """A language model that also tells how likely a text is."""

    def likelihood(self, texts: Sequence[str]) -> list[float]:
        """Natural log of each text's probability."""


class Backend(ABC):
    """One way to have captions rewritten.

    Attributes:
        has_responses: False where nothing is requested, as the negatives come with the pairs.
        has_model: `model` of the settings names what writes, or ranks.
        needs_prompt: its model is given a rule and examples.
        is_paid: a response costs time or money. Its seconds count, and clean-up leaves it alone unless asked for them.
        repairs: a rejected response is worth a second request, told what was wrong or with another seed alone.
        is_sampler: its model gives as many texts per request as `samples` says.
        is_constrained: its model writes only what a request's `allowed` says.
        is_scorer: its model is a `Scorer`.
        is_plain: its model is plain data, of which every process can have a copy.
    """

    has_responses: ClassVar[bool] = True
    has_model: ClassVar[bool] = True
    needs_prompt: ClassVar[bool] = True
    is_paid: ClassVar[bool] = True
    repairs: ClassVar[bool] = True
    is_sampler: ClassVar[bool] = False
    is_constrained: ClassVar[bool] = False
    is_scorer: ClassVar[bool] = False
    is_plain: ClassVar[bool] = False

    def name(self, settings: Settings) -> str:
        """What the column `model` of the negatives says."""
        return f"{settings.backend}:{settings.model}" if self.needs_prompt else settings.backend

    @abstractmethod
    def identity(self, settings: Settings) -> str:
        """What tells the model from any other: a digest, or a name. Raises UserError when it is not there."""

    def source(self, settings: Settings, prompt: str, inputs: Inputs) -> dict[str, Any]:
        """Everything that decides a response beside the caption, as plain JSON data.

        Args:
            settings: the stage's.
            prompt: digest of what the model is given before the caption.
            inputs: of the stage: the pairs.
        """
        return {"backend": settings.backend, "model": self.identity(settings), "seed": settings.seed}

    @abstractmethod
    def open(self, settings: Settings, corpus: Corpus, log: Path) -> LanguageModel:
        """Start the model. Raises UserError when it cannot be had.

        Args:
            settings: the stage's.
            corpus: the captions to come, for a model that learns from them.
            log: file for what a process of the model's own prints.
        """


def sampling(settings: Settings, prompt: str, *, is_constrained: bool) -> dict[str, Any]:
    """The part of a `source` that models share that are given a prompt and sample.

    Args:
        settings: the stage's.
        prompt: digest of what the model is given.
        is_constrained: the model can only write what `LINE` allows.
    """
    return {
        "name": settings.model,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "chat_template": {**FIXED, **settings.chat_template},
        "reply": LINE if is_constrained else None,
        "prompt": prompt,
        **({"samples": settings.samples} if settings.samples > 1 else {}),
    }
