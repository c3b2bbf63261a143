import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from stages.language_models.base import Request
from stages.language_models.server import Server

PREFIX = [{"role": "system", "content": "Swap."}]


Answer = tuple[int, dict[str, str], bytes]


def completion(text: str, reason: str = "stop") -> bytes:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}).encode()


@contextmanager
def serving(answer: Callable[[str, int], Answer], models: Answer | None = None) -> Iterator[tuple[str, list[Any]]]:
    """A real server on the loopback: `answer(caption, how often it was asked before)`."""
    asked: Counter[str] = Counter()
    bodies: list[Any] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send(*(models or (200, {}, json.dumps({"data": [{"id": "m"}]}).encode())))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            caption = body["messages"][-1]["content"]
            with lock:
                before = asked[caption]
                asked[caption] += 1
                bodies.append({**body, "key": self.headers.get("Authorization")})
            self.send(*answer(caption, before))

        def send(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", bodies
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def connect(url: str, **settings: Any) -> Server:
    defaults: dict[str, Any] = {"temperature": 0.5, "top_p": 1.0, "concurrency": 4, "timeout": 5.0, "tries": 3}
    return Server(url, "m", **{**defaults, "wait": 0.01, **settings})


def asks(*captions: str) -> list[Request]:
    return [Request(caption, 0, seed, 20) for seed, caption in enumerate(captions)]


def test_faults_stay_with_their_own_ask() -> None:
    def answer(caption: str, before: int) -> Answer:
        match caption:
            case "busy" | "broken" if before < 2:
                return {"busy": 429, "broken": 500}[caption], {"Retry-After": "0.01"}, b"later"
            case "always 503":
                return 503, {}, b"overloaded"
            case "refused":
                return 400, {}, b'{"error": "prompt too long"}'
            case "garbage":
                return 200, {}, b"<html>"
            case "truncated":
                return 200, {}, completion("b a")[:-9]
            case "half":
                return 200, {"Content-Length": "4000"}, completion("b a")
            case "other shape":
                return 200, {}, b'{"choices": []}'
            case "no text":
                return 200, {}, b'{"choices": [{"message": {"content": null}}]}'
            case "cut":
                return 200, {}, completion("b", "length")
        return 200, {}, completion(f"{caption}!")

    names = ("busy", "broken", "always 503", "refused", "garbage", "truncated", "half", "other shape", "no text", "cut")
    with serving(answer) as (url, bodies):
        server = connect(url, timeout=1.0)
        ticks: list[int] = []
        replies = server.respond("swap_nouns", PREFIX, asks("fine", *names), ticks.append)
        server.close()
    found = dict(zip(("fine", *names), replies, strict=True))
    assert [found[name].text for name in ("fine", "busy", "broken")] == ["fine!", "busy!", "broken!"]
    assert (found["fine"].prompt_tokens, found["fine"].reply_tokens, found["fine"].finish_reason) == (7, 3, "stop")
    assert (found["cut"].text, found["cut"].finish_reason) == ("b", "length")
    for name in ("always 503", "refused", "garbage", "truncated", "half", "other shape", "no text"):
        assert found[name].text is None and found[name].finish_reason == "error" and found[name].error, name
    assert "503" in str(found["always 503"].error) and "prompt too long" in str(found["refused"].error)
    counted = Counter(body["messages"][-1]["content"] for body in bodies)
    assert counted["always 503"] == 3 and counted["refused"] == 1 and counted["busy"] == 3
    assert sum(ticks) == 11


def test_the_request_carries_prompt_sampling_seed_cap_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with serving(lambda caption, before: (200, {}, completion("x"))) as (url, bodies):
        server = connect(url)
        server.respond("swap_nouns", PREFIX, asks("a", "b"), lambda count: None)
        server.close()
    body = next(body for body in bodies if body["messages"][-1]["content"] == "b")
    assert body["messages"] == [*PREFIX, {"role": "user", "content": "b"}]
    assert (body["model"], body["seed"], body["max_tokens"], body["temperature"]) == ("m", 1, 20, 0.5)
    assert body["key"] == "Bearer secret" and "regex" in body["structured_outputs"]


def test_no_more_requests_at_once_than_allowed() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def answer(caption: str, before: int) -> Answer:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return 200, {}, completion("x")

    with serving(answer) as (url, _):
        server = connect(url, concurrency=3)
        server.respond("swap_nouns", PREFIX, asks(*map(str, range(20))), lambda count: None)
        server.close()
    assert 1 < most <= 3


def test_a_server_that_is_not_there_or_not_ours_is_the_user_s_to_mend() -> None:
    with pytest.raises(UserError, match="does not answer"):
        connect("http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match="does not answer"):
        connect("no address")
    with (
        serving(lambda *_: (200, {}, b""), (401, {}, b"")) as (url, _),
        pytest.raises(UserError, match="OPENAI_API_KEY"),
    ):
        connect(url)
    other: tuple[int, dict[str, str], bytes] = (200, {}, json.dumps({"data": [{"id": "other"}]}).encode())
    with serving(lambda *_: (200, {}, b""), other) as (url, _), pytest.raises(UserError, match="does not serve 'm'"):
        connect(url)


@pytest.mark.parametrize(
    "content",
    [
        b'{"choices": [{"message": {"content": "x"}}], "usage": "abc"}',
        b'{"choices": [{"message": {"content": "\\ud800"}}]}',
        b"[" * 100_000,
        b"[]",
    ],
)
def test_a_hostile_answer_fails_one_ask_alone(content: bytes) -> None:
    with serving(lambda caption, before: (200, {}, content)) as (url, _):
        model = connect(url)
        (reply,) = model.respond("swap_nouns", PREFIX, [Request("a", 0, 1, 9)], lambda _: None)
        model.close()
    assert reply.text is None and reply.error


def test_counts_that_are_none_and_broken_packing(tmp_path: Path) -> None:
    many = b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "many", "completion_tokens": -1}}'
    with serving(lambda caption, before: (200, {"Content-Encoding": "gzip"} if caption == "b" else {}, many)) as (
        url,
        _,
    ):
        model = connect(url)
        one, two = model.respond("swap_nouns", PREFIX, [Request("a", 0, 1, 9), Request("b", 0, 1, 9)], lambda _: None)
        model.close()
    assert (one.text, one.prompt_tokens, one.reply_tokens) == ("x", None, None) and "DecodingError" in str(two.error)


def test_a_key_that_a_server_says_back_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with serving(lambda caption, before: (400, {}, b"bad key sk-secret")) as (url, _):
        model = connect(url)
        (reply,) = model.respond("swap_nouns", PREFIX, [Request("a", 0, 1, 9)], lambda _: None)
        model.close()
    assert reply.error == "status 400: bad key ***"
