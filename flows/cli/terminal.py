"""What the command line prints on, and how it writes a score."""

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from pipeline.errors import printable


class _Plain(Console):
    """Prints texts as they are, in tables as well: no markup, no emoji, nothing in them steers the terminal."""

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(printable(text), **how | {"markup": False, "emoji": False})


out = _Plain(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 140)


def with_interval(estimate: Mapping[str, Any] | None) -> str:
    """A share with its interval, as per cent."""
    if estimate is None or estimate["value"] is None:
        return "not scored"
    value, low, high = (100 * estimate[key] for key in ("value", "low", "high"))
    return f"{value:.1f} ({low:.1f} to {high:.1f})"
