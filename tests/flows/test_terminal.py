"""What the command line prints of foreign text and of scores."""

from collections.abc import Callable
from typing import Any

import pytest
from rich.table import Table

from flows.terminal import change_with_interval, out, with_interval


@pytest.mark.parametrize("text", ["\x1b[31mred", "[/foo]", "[link=http://x]y[/link]", ":smile:", "\x9b31m", "a\u202eb"])
def test_foreign_text_is_printed_as_text(text: str) -> None:
    with out.capture() as shown:
        out.print(text)
        table = Table(text)
        table.add_row(text)
        out.print(table)
    printed = shown.get().replace("\n", "")
    assert printed.isprintable() and printed.count(ascii(text)[1:-1] if not text.isprintable() else text) == 3


def test_scores_and_changes_are_written_as_on_the_pages() -> None:
    assert with_interval({"value": 0.5, "low": 0.412, "high": 0.6}) == "50.0 (41.2 to 60.0)"
    assert change_with_interval({"value": 0.014, "low": -0.0003, "high": 0.028}) == "+1.4 (0.0 to +2.8)"
    assert change_with_interval({"value": -0.02, "low": -0.05, "high": 0.01}) == "−2.0 (−5.0 to +1.0)"


@pytest.mark.parametrize("write", [with_interval, change_with_interval])
@pytest.mark.parametrize("estimate", [None, {"value": None, "low": None, "high": None}])
def test_what_was_not_scored_is_said(write: Callable[[Any], str], estimate: dict[str, None] | None) -> None:
    assert write(estimate) == "not scored"
