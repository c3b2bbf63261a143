import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import TransientError, UserError
from stages.language_models.base import FIXED, Request
from stages.language_models.server import Server
from tests.stages.language_models.serving import Answer, completion, serving

PREFIX = [{"role": "system", "content": "Swap."}]


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
                return 200, {}, completion("b", reason="length")
        return 200, {}, completion(f"{caption}!")

    names = ("busy", "broken", "always 503", "refused", "garbage", "truncated", "half", "other shape", "no text", "cut")
    with serving(answer) as (url, bodies):
        server = connect(url, timeout=1.0)
        replies = list(server.respond("swap_nouns", PREFIX, asks("fine", *names)))
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


def test_the_request_carries_prompt_sampling_seed_cap_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with serving(lambda caption, before: (200, {}, completion("x"))) as (url, bodies):
        server = connect(url)
        list(server.respond("swap_nouns", PREFIX, asks("a", "b")))
        server.close()
    body = next(body for body in bodies if body["messages"][-1]["content"] == "b")
    assert body["messages"] == [*PREFIX, {"role": "user", "content": "b"}]
    assert (body["model"], body["seed"], body["max_tokens"], body["temperature"]) == ("m", 1, 20, 0.5)
    assert body["key"] == "Bearer secret" and "regex" in body["structured_outputs"]


def test_several_texts_come_of_one_request_each_once_and_its_tokens_count_once() -> None:
    with serving(lambda caption, before: (200, {}, completion("x", "y", "x", "z"))) as (url, bodies):
        server = connect(url, samples=3)
        (found,) = server.respond("swap_nouns", PREFIX, asks("a"))
        server.close()
    assert bodies[0]["n"] == 3
    assert [one.text for one in (found, *found.others)] == ["x", "y"]  # the fourth was not asked for
    assert [(one.prompt_tokens, one.reply_tokens) for one in (found, *found.others)] == [(7, 3), (0, 0)]


def neutral_of(body: dict[str, Any]) -> list[Any]:
    names = ("repetition_penalty", "frequency_penalty", "presence_penalty", "top_k", "min_p")
    return [body[name] for name in names]


def test_a_model_s_own_penalties_the_date_and_thinking_are_switched_off_where_the_server_knows_them() -> None:
    with serving(lambda caption, before: (200, {}, completion("x"))) as (url, bodies):
        for settings in ({}, {"chat_template": {"enable_thinking": True}}, {"structured": False}):
            server = connect(url, **settings)
            list(server.respond("swap_nouns", PREFIX, asks("a")))
            server.close()
    own: Answer = (200, {}, json.dumps({"data": [{"id": "m", "owned_by": "vllm"}]}).encode())
    with serving(lambda caption, before: (200, {}, completion("x")), own) as (url, more):
        server = connect(url, structured=False)
        list(server.respond("swap_nouns", PREFIX, asks("a")))
        server.close()
    plain, thinking, foreign = bodies
    assert neutral_of(more[0]) == neutral_of(plain) and "structured_outputs" not in more[0]
    assert neutral_of(plain) == [1, 0, 0, -1, 0] and plain["chat_template_kwargs"] == FIXED
    assert thinking["chat_template_kwargs"] == {**FIXED, "enable_thinking": True}
    assert set(foreign) == {"key", "model", "messages", "max_tokens", "seed", "temperature", "top_p", "stop"}


def test_a_server_whose_template_refuses_a_system_turn_gets_the_rule_in_the_first_user_turn() -> None:
    def answer(caption: str, before: int) -> Answer:
        if bodies[-1]["messages"][0]["role"] == "system":
            return 400, {}, b'{"message": "System role not supported"}'
        return 200, {}, completion("x")

    examples = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "b a"}]
    with serving(answer) as (url, bodies):
        server = connect(url, concurrency=1)
        found = list(server.respond("swap_nouns", [*PREFIX, *examples], asks("c", "d", "e")))
        server.close()
    assert [response.text for response in found] == ["x", "x", "x"] and len(bodies) == 4
    assert bodies[-1]["messages"] == [
        {"role": "user", "content": "Swap.\n\na b"}, examples[1], {"role": "user", "content": "e"}
    ]  # fmt: skip


def test_a_server_that_dies_ends_everything_at_once_and_what_it_said_before_is_there() -> None:
    with serving(lambda caption, before: (200, {}, completion(f"{caption}!")), dies_after=10) as (url, _):
        server = connect(url, concurrency=2)
        said = []
        start = time.monotonic()
        with pytest.raises(TransientError, match=r"the server is gone \(.*\); expected one that stays"):
            for response in server.respond("swap_nouns", PREFIX, asks(*map(str, range(5000)))):
                said.append(response)
        server.close()
    assert [response.text for response in said] == [f"{i}!" for i in range(len(said))] and 8 <= len(said) <= 12
    assert time.monotonic() - start < 30


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
        list(server.respond("swap_nouns", PREFIX, asks(*map(str, range(20)))))
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
        (reply,) = model.respond("swap_nouns", PREFIX, [Request("a", 0, 1, 9)])
        model.close()
    assert reply.text is None and reply.error


def test_counts_that_are_none_and_broken_packing(tmp_path: Path) -> None:
    many = b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "many", "completion_tokens": -1}}'
    with serving(lambda caption, before: (200, {"Content-Encoding": "gzip"} if caption == "b" else {}, many)) as (
        url,
        _,
    ):
        model = connect(url)
        one, two = model.respond("swap_nouns", PREFIX, [Request("a", 0, 1, 9), Request("b", 0, 1, 9)])
        model.close()
    assert (one.text, one.prompt_tokens, one.reply_tokens) == ("x", None, None) and "DecodingError" in str(two.error)


def test_a_key_that_a_server_says_back_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with serving(lambda caption, before: (400, {}, b"bad key sk-secret")) as (url, _):
        model = connect(url)
        (reply,) = model.respond("swap_nouns", PREFIX, [Request("a", 0, 1, 9)])
        model.close()
    assert reply.error == "status 400: bad key ***"
