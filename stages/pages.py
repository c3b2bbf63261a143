"""The report's pages: the templates of data/report filled with facts; how numbers and foreign text are written."""

import json
import re
from typing import Any

from stages.benchmarks import REGISTRY

TEMPLATES = REGISTRY.parent / "report"


def render(name: str, facts: dict[str, Any], **more: Any) -> str:
    """One page, "report.html" or "report.md". HTML escapes everything, Markdown what goes through the `md` filter."""
    return str(_environment().get_template(f"{name}.j2").render(facts, **more))


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: bool(name) and ".html" in str(name),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "points": signed,
        "p": _p_value,
        "count": _count,
        "md": _markdown,
        "breakable": _breakable,
        "bare": lambda name, benchmark: name.removeprefix(f"{benchmark}."),
        "duration": _duration,
        "number": _number,
        "json": lambda value: json.dumps(value, indent=1, sort_keys=True),
    }
    return environment


def percent(share: float | None) -> str:
    """A share as per cent, one decimal; a dash for nothing scored."""
    return "–" if share is None else f"{100 * share:.1f}"


def signed(share: float | None) -> str:
    """A difference of shares in points with its sign; a dash for nothing scored."""
    return "–" if share is None else "0.0" if abs(share) < 0.0005 else f"{100 * share:+.1f}".replace("-", "−")


def _p_value(p: float | None) -> str:
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _count(number: float | None) -> str:
    return "–" if number is None else f"{number:,.0f}"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60} h {minutes % 60} min"
        if minutes >= 60
        else f"{minutes} min {rest} s"
        if minutes
        else f"{rest} s"
    )


def _breakable(name: str) -> Any:
    """A name that may wrap after its dots, dashes and underscores."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"([._-])", r"\1<wbr>", str(escape(name))))


def _markdown(text: Any) -> str:
    """Text from data inside a Markdown table cell: nothing of it may become markup."""
    plain = " ".join(str(text).split())
    for sign in "\\`*_[]|#~":
        plain = plain.replace(sign, f"\\{sign}")
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
