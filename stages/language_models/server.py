"""Any OpenAI-compatible chat server."""

import os
import random
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.errors import TransientError, UserError
from pipeline.stage import Inputs
from stages.language_models.base import (
    FIXED,
    LINE,
    Backend,
    Corpus,
    Message,
    Request,
    Response,
    Settings,
    sampling,
)
from stages.language_models.chat import without_system

_RETRIED = frozenset((408, 409, 425, 429, 500, 502, 503, 504))

_NO_SUCH_ROLE = re.compile(r"\broles?\b", re.IGNORECASE)
"""In the answer of a server whose chat template refuses a system turn, however it puts it."""

_NEUTRAL = {"repetition_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0, "top_k": -1, "min_p": 0.0}
"""What vLLM's server takes from the model's own settings unless it is told; a negative repeats its caption."""


class ServerBackend(Backend):
    """`generate.model` is the server's name of the model, `generate.base_url` its address."""

    is_sampler = True
    is_constrained = True

    def identity(self, settings: Settings) -> str:
        """The model's name: a server tells no more."""
        return settings.model

    def source(self, settings: Settings, prompt: str, inputs: Inputs) -> dict[str, Any]:
        """Name, sampling and prompt."""
        told = sampling(settings, prompt, is_constrained=bool(settings.structured))
        return {**super().source(settings, prompt, inputs), **told}

    def open(self, settings: Settings, corpus: Corpus, log: Path) -> "Server":
        """Connect to the server."""
        return Server(
            settings.base_url,
            settings.model,
            temperature=settings.temperature,
            top_p=settings.top_p,
            samples=settings.samples,
            concurrency=settings.concurrency,
            timeout=settings.timeout,
            structured=bool(settings.structured),
            chat_template=settings.chat_template,
        )


class Server:
    """An OpenAI-compatible chat server.

    Up to `concurrency` requests at once. 408, 409, 425, 429, 5xx, time-outs and broken connections are tried again, up
    to `tries` times with jittered exponential waits (a `Retry-After` is honoured); then, and on anything else that is
    no response (another status, garbage, half a JSON), the request fails alone. A server that no longer answers
    at all ends everything. The key is read from `OPENAI_API_KEY`.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        temperature: float,
        top_p: float,
        samples: int = 1,
        concurrency: int,
        timeout: float,
        tries: int = 5,
        wait: float = 0.5,
        structured: bool = True,
        chat_template: dict[str, Any] | None = None,
    ) -> None:
        """Raises UserError when the server cannot be reached, rejects the key, or does not serve the model."""
        import httpx

        self._key = os.environ.get("OPENAI_API_KEY")
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        self._client = httpx.Client(base_url=base_url.rstrip("/"), headers=headers, timeout=timeout, limits=limits)
        self._model, self._tries, self._wait = model, tries, wait
        self._sampling: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "stop": ["\n"]}
        if samples > 1:
            self._sampling["n"] = samples
        if structured:
            self._sampling["structured_outputs"] = {"regex": LINE}
        if chat_template:
            self._sampling["chat_template_kwargs"] = chat_template
        self._base_url, self._is_dead = base_url, threading.Event()
        self._takes_system = True
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="request")
        try:
            if self._check(base_url) or structured:
                self._sampling |= {**_NEUTRAL, "chat_template_kwargs": {**FIXED, **(chat_template or {})}}
        except BaseException:
            self.close()
            raise

    def _check(self, base_url: str) -> bool:
        """Whether the server says that it is vLLM, or of its kind."""
        import httpx

        def unusable(what: str, expected: str, fix: str) -> UserError:
            return UserError("generate", f"{base_url}: {what}", expected, fix)

        error: Exception | None = None
        for attempt in range(self._tries):
            try:
                answer = self._client.get("/models")
            except (httpx.HTTPError, httpx.InvalidURL) as broken:
                error = broken
            else:
                if answer.status_code not in _RETRIED:
                    break
                error = RuntimeError(f"status {answer.status_code}")
            self._pause(attempt, None)
        else:
            raise unusable(
                f"server does not answer ({error})", "an OpenAI-compatible server", "start it, or generate.base_url"
            )
        if answer.status_code in (401, 403):
            raise unusable(f"status {answer.status_code}", "a valid key", "set OPENAI_API_KEY in the environment")
        try:
            served = {str(entry["id"]): entry.get("owned_by") for entry in answer.json()["data"]}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False
        if answer.is_success and self._model not in served:
            raise unusable(f"does not serve {self._model!r}", f"one of {', '.join(list(served)[:5])}", "generate.model")
        return served.get(self._model) in ("vllm", "sglang")

    def respond(self, kind: str, prefix: list[Message], requests: Sequence[Request]) -> Iterator[Response]:
        """Ask the server, many at a time; responses in the order of the requests.

        Raises TransientError when the server is gone; the requests under way then end at once.
        """
        return self._pool.map(lambda request: self._request(prefix, request), requests)

    def _request(self, prefix: list[Message], request: Request) -> Response:
        import httpx

        chat = [*prefix, *request.turns]
        body = {"model": self._model, "max_tokens": request.max_tokens, "seed": request.seed, **self._sampling}
        if request.allowed:
            body["structured_outputs"] = request.allowed
        error, is_silent = "", False
        for attempt in range(self._tries):
            after, is_silent = None, False
            if self._is_dead.is_set():
                raise self._gone("does not answer")
            with_system = self._takes_system
            try:
                messages = chat if with_system else without_system(chat)
                answer = self._client.post("/chat/completions", json={**body, "messages": messages})
                if answer.is_success:
                    return read_completion(answer.json(), self._sampling.get("n", 1))
                error = f"status {answer.status_code}: {answer.text[:200]}"
                error = error.replace(self._key, "***") if self._key else error
                if answer.status_code == 400 and with_system and _NO_SUCH_ROLE.search(answer.text):
                    self._takes_system = False  # from now on, for all
                    continue
                if answer.status_code not in _RETRIED:
                    break
                after = answer.headers.get("retry-after")
            except httpx.RequestError as broken:
                error, is_silent = f"{type(broken).__name__}: {broken}", True
            except (ValueError, RecursionError) as broken:
                error = f"no valid answer: {broken}"
                break
            if attempt + 1 < self._tries:
                self._pause(attempt, after)
        if is_silent and not self._answers():
            raise self._gone(error)
        return Response.failed(error)

    def _answers(self) -> bool:
        """Whether the server says anything at all, be it an error."""
        import httpx

        try:
            self._client.get("/models")
        except httpx.RequestError:
            self._is_dead.set()
            return False
        return True

    def _gone(self, error: str) -> TransientError:
        return TransientError(
            f"generate: {self._base_url}: the server is gone ({error}); expected one that stays; fix: start it again; "
            f"the same command continues from here"
        )

    def _pause(self, attempt: int, after: str | None) -> None:
        wait = min(self._wait * 2**attempt, 30) * random.uniform(0.5, 1.5)
        time.sleep(min(float(after), 60.0) if after and after.replace(".", "", 1).isdecimal() else wait)

    def facts(self) -> dict[str, Any]:
        """Nothing is known of a server."""
        return {}

    def close(self) -> None:
        """Close the connections; waits for requests under way."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._client.close()


def read_completion(answer: Any, samples: int = 1) -> Response:
    """The response in what a server sent, further choices as its `others`, each text once.

    A server counts tokens of all of them together: they are the first one's.

    Raises ValueError when there is none that can be kept.
    """
    try:
        texts: dict[str, str] = {}
        for choice in answer["choices"][:samples]:
            text, reason = choice["message"]["content"], choice.get("finish_reason") or "stop"
            if not isinstance(text, str):
                raise ValueError("content is no text")
            for told in (text, reason):
                str(told).encode()  # half a surrogate pair could not be kept
            texts.setdefault(text, str(reason))
        usage = answer.get("usage") or {}
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        first, *others = [Response(text, reason, 0, 0) for text, reason in texts.items()]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__} {error}") from None
    prompt, written = (count if isinstance(count, int) and 0 <= count < 2**31 else None for count in counts)
    return replace(first, prompt_tokens=prompt, reply_tokens=written, others=tuple(others))
