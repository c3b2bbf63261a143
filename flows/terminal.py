"""What the command line prints on, and how it writes a score."""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from pipeline.errors import printable
from stages.pages import percent, signed


class _Plain(Console):
    """Prints texts as they are, in tables as well: no markup, no emoji, nothing in them steers the terminal."""

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(printable(text), **how | {"markup": False, "emoji": False})


out = _Plain(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 140)


Json = Annotated[bool, typer.Option("--json", help="print JSON")]
"""The option that every command which prints a result has."""


def print_json(value: Any) -> None:
    """Print plain data as JSON; what is neither text, number, list nor mapping as text."""
    print(json.dumps(value, indent=1, default=str))


def with_interval(estimate: Mapping[str, Any] | None) -> str:
    """A share with its interval, as per cent."""
    return _with_interval(estimate, percent)


def change_with_interval(difference: Mapping[str, Any] | None) -> str:
    """A difference of shares with its interval, as points with their signs."""
    return _with_interval(difference, signed)


def _with_interval(estimate: Mapping[str, Any] | None, written: Callable[[float], str]) -> str:
    if estimate is None or estimate["value"] is None:
        return "not scored"
    value, low, high = (written(estimate[key]) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
