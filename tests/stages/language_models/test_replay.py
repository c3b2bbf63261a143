import json
from pathlib import Path

import pytest

from pipeline.errors import UserError
from stages.language_models.base import Request
from stages.language_models.replay import Replay


def test_replay_answers_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    rows = [
        {"type": "swap_nouns", "caption": "a b", "reply": "b a", "reply_tokens": 2},
        {"type": "swap_nouns", "caption": "a b", "reply": "b  a", "attempt": 1, "finish_reason": "length"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    replay = Replay(path)
    found = replay.respond("swap_nouns", [], [Request("a b", 0, 0, 9), Request("a b", 1, 0, 9), Request("c", 0, 0, 9)])
    assert [(reply.text, reply.finish_reason) for reply in found] == [
        ("b a", "stop"),
        ("b  a", "length"),
        (None, "error"),
    ]


@pytest.mark.parametrize("content", ('{"type": "swap_nouns"}', "not JSON", None))
def test_a_replay_file_that_is_none_is_rejected(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "replies.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"replies\.jsonl"):
        Replay(path)


def test_a_repair_without_a_line_of_its_own_finds_the_try_before(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    rows = [{"type": "swap_nouns", "caption": "a", "reply": str(attempt), "attempt": attempt} for attempt in (0, 2)]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = Replay(path).respond("swap_nouns", [], [Request("a", attempt, 0, 9) for attempt in range(4)])
    assert [response.text for response in found] == ["0", "0", "2", "2"]
