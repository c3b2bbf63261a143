"""Language models that rewrite captions, behind one protocol: asks in, replies out, in order.

    vllm     offline engine in a process of its own (`stages/language_models/vllm.py`)
    openai   any OpenAI-compatible server
    replay   canned replies from a Parquet or JSONL file

The fourth, `rules`, needs no model and lives in generate/rules.py. A fault of one ask is an error in its own reply;
only what makes every ask fail (no engine, no server) raises.
"""

import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pyarrow as pa

from pipeline.errors import UserError
from stages.generate.prompts import Message

LINE = r"[^\x00-\x1f\x7f*_#<>{}\[\]|\\~^=`]+"
"""What a reply may look like: one line without control characters and markup. Fixed, so it is compiled once."""

RETRIED = frozenset((408, 409, 425, 429, 500, 502, 503, 504))

Ticker = Callable[[int], None]
"""Called now and then with the number of replies that just came in."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One caption to rewrite.

    Attributes:
        caption: the caption.
        attempt: 0 = first try, 1 = repair.
        seed: of the sampling; fixed by caption, type and attempt.
        max_tokens: the reply's cap.
        avoid: other captions of the same pictures; only the rules generator looks at them.
    """

    caption: str
    attempt: int
    seed: int
    max_tokens: int
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one ask: a text, or an error.

    Attributes:
        text: the reply as it came; None with an error.
        finish_reason: stop, length, or error.
        prompt_tokens: tokens of the prompt, None where nobody counts.
        reply_tokens: tokens of the reply, likewise.
        error: one line, None when there is a text.
    """

    text: str | None
    finish_reason: str
    prompt_tokens: int | None = None
    reply_tokens: int | None = None
    error: str | None = None

    @classmethod
    def failed(cls, error: str) -> "Reply":
        """The reply of an ask that brought no text."""
        return cls(None, "error", None, None, " ".join(error.split())[:300])


class LanguageModel(Protocol):
    """Anything that answers asks."""

    def reply(self, kind: str, prefix: list[Message], asks: Sequence[Ask], tick: Ticker) -> list[Reply]:
        """Replies in the order of the asks, all of one negative type and one prompt prefix."""

    def facts(self) -> dict[str, Any]:
        """What ran: version, hardware, figures of the engine."""

    def close(self) -> None:
        """Release everything: processes, memory, connections."""


class Replay:
    """Answers from a Parquet or JSONL file with columns type, caption, reply, and optionally attempt (0), finish_reason
    ("stop"), prompt_tokens, reply_tokens. An ask the file does not hold fails, alone. Needs no prompts, and no memory
    to speak of: the file is searched once per call.
    """

    def __init__(self, path: Path) -> None:
        """Raises UserError when the file cannot be read, or a row lacks its type, caption or reply."""
        self._sql = duckdb.connect()
        try:
            if path.suffix == ".parquet":
                rows = self._sql.read_parquet(str(path))
            else:
                rows = self._sql.read_json(str(path), columns=_REPLAY, format="newline_delimited")
            missing = {"type", "caption", "reply"} - set(rows.columns)
            columns = ", ".join(name if name in rows.columns else f"null as {name}" for name in _REPLAY)
            rows.project(columns).create_view("replies")
            lacking = missing or rows.filter("type is null or caption is null or reply is null").limit(1).fetchall()
        except (duckdb.Error, OSError) as error:
            raise _bad_replay(f"{path}: {str(error).splitlines()[0]}") from None
        if lacking:
            raise _bad_replay(f"{path}: a row without type, caption or reply")

    def reply(self, kind: str, prefix: list[Message], asks: Sequence[Ask], tick: Ticker) -> list[Reply]:
        """Look each ask up; a repair without a line of its own finds nothing."""
        asked = pa.table({"caption": [ask.caption for ask in asks], "attempt": [ask.attempt for ask in asks]})
        self._sql.register("asked", asked)
        found = self._sql.execute(
            "select asked.caption, asked.attempt, reply, coalesce(finish_reason, 'stop'), prompt_tokens, reply_tokens "
            "from replies join asked on replies.caption = asked.caption "
            "and coalesce(replies.attempt, 0) = asked.attempt where type = $1",
            [kind],
        ).fetchall()
        replies = {(caption, attempt): Reply(*rest) for caption, attempt, *rest in found}
        missing = Reply.failed("the replay file has no reply to this")
        return [replies.get((ask.caption, ask.attempt), missing) for ask in asks]

    def facts(self) -> dict[str, Any]:
        """Nothing worth telling."""
        return {}

    def close(self) -> None:
        """Let go of the file."""
        self._sql.close()


_REPLAY = {
    "type": "VARCHAR",
    "caption": "VARCHAR",
    "reply": "VARCHAR",
    "attempt": "INTEGER",
    "finish_reason": "VARCHAR",
    "prompt_tokens": "INTEGER",
    "reply_tokens": "INTEGER",
}


def _bad_replay(what: str) -> UserError:
    return UserError("generate", what, "a Parquet or JSONL file of type, caption, reply", "generate.model")


class Server:
    """An OpenAI-compatible chat server.

    Up to `concurrency` requests at once. 408, 409, 425, 429, 5xx, time-outs and broken connections are tried again, up
    to `tries` times with jittered exponential waits (a `Retry-After` is honoured); then, and on any other answer that
    is no reply (another status, garbage, half a JSON), the ask fails alone. The key is read from `OPENAI_API_KEY`.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        temperature: float,
        top_p: float,
        concurrency: int,
        timeout: float,
        tries: int = 5,
        wait: float = 0.5,
        structured: bool = True,
    ) -> None:
        """Raises UserError when the server cannot be reached, refuses the key, or does not serve the model."""
        import httpx

        self._key = os.environ.get("OPENAI_API_KEY")
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        self._client = httpx.Client(base_url=base_url.rstrip("/"), headers=headers, timeout=timeout, limits=limits)
        self._model, self._tries, self._wait = model, tries, wait
        self._sampling: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "stop": ["\n"]}
        if structured:
            self._sampling["structured_outputs"] = {"regex": LINE}
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="ask")
        try:
            self._check(base_url)
        except BaseException:
            self.close()
            raise

    def _check(self, base_url: str) -> None:
        import httpx

        def refuse(what: str, expected: str, fix: str) -> UserError:
            return UserError("generate", f"{base_url}: {what}", expected, fix)

        error: Exception | None = None
        for attempt in range(self._tries):
            try:
                answer = self._client.get("/models")
            except (httpx.HTTPError, httpx.InvalidURL) as broken:
                error = broken
            else:
                if answer.status_code not in RETRIED:
                    break
                error = RuntimeError(f"status {answer.status_code}")
            self._pause(attempt, None)
        else:
            raise refuse(
                f"server does not answer ({error})", "an OpenAI-compatible server", "start it, or generate.base_url"
            )
        if answer.status_code in (401, 403):
            raise refuse(f"status {answer.status_code}", "a valid key", "set OPENAI_API_KEY in the environment")
        try:
            served = [str(entry["id"]) for entry in answer.json()["data"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        if answer.is_success and self._model not in served:
            raise refuse(f"does not serve {self._model!r}", f"one of {', '.join(served[:5])}", "generate.model")

    def reply(self, kind: str, prefix: list[Message], asks: Sequence[Ask], tick: Ticker) -> list[Reply]:
        """Ask the server, many at a time; replies in the order of the asks."""

        def one(ask: Ask) -> Reply:
            found = self._ask(prefix, ask)
            tick(1)
            return found

        return list(self._pool.map(one, asks))

    def _ask(self, prefix: list[Message], ask: Ask) -> Reply:
        import httpx

        body = {
            "model": self._model,
            "messages": [*prefix, {"role": "user", "content": ask.caption}],
            "max_tokens": ask.max_tokens,
            "seed": ask.seed,
            **self._sampling,
        }
        error = ""
        for attempt in range(self._tries):
            after = None
            try:
                answer = self._client.post("/chat/completions", json=body)
                if answer.is_success:
                    return _read_completion(answer.json())
                error = f"status {answer.status_code}: {answer.text[:200]}"
                error = error.replace(self._key, "***") if self._key else error
                if answer.status_code not in RETRIED:
                    break
                after = answer.headers.get("retry-after")
            except httpx.RequestError as broken:
                error = f"{type(broken).__name__}: {broken}"
            except (ValueError, RecursionError) as broken:
                error = f"no valid answer: {broken}"
                break
            if attempt + 1 < self._tries:
                self._pause(attempt, after)
        return Reply.failed(error)

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


def _read_completion(answer: Any) -> Reply:
    try:
        choice = answer["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason") or "stop"
        usage = answer.get("usage") or {}
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        if not isinstance(text, str):
            raise ValueError("content is no text")
        for told in (text, reason):
            str(told).encode()  # half a surrogate pair could not be kept
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__} {error}") from None
    prompt, reply = (count if isinstance(count, int) and 0 <= count < 2**31 else None for count in counts)
    return Reply(text, str(reason), prompt, reply)
