"""Pages: templates filled with facts; how numbers, foreign text and images are written into them."""

import base64
import difflib
import io
import json
import re
from pathlib import Path
from typing import Any

import yaml

from pipeline.assets import DATA
from pipeline.clip import read_picture

TEMPLATES = DATA / "report"
CARDS = DATA / "card"


def render(name: str, facts: dict[str, Any], templates: Path = TEMPLATES, **more: Any) -> str:
    """One page, e.g. "report.html" or "report.md". HTML escapes everything, Markdown what goes through `md`."""
    return str(_environment(templates).get_template(f"{name}.j2").render(facts, **more))


def thumbnail(path: Path, side: int) -> str:
    """An image file as a data URI, its longest side at most `side` pixels. Small images are kept as they are, large
    ones become JPEG. Raises UserError when it cannot be read.
    """
    from PIL import Image

    image = read_picture(path)
    small = max(image.size) <= side
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, **({"format": "PNG"} if small else {"format": "JPEG", "quality": 82}))
    return data_uri("image/png" if small else "image/jpeg", out.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """Bytes of a MIME type as a link that holds them."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _environment(templates: Path) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(templates),
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
        "md": markdown,
        "breakable": _breakable,
        "bare": lambda name, benchmark: name.removeprefix(f"{benchmark}."),
        "duration": duration,
        "number": _number,
        "json": lambda value: json.dumps(value, indent=1, sort_keys=True),
        "yaml": lambda value: yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100),
        "sentence": lambda text: text[:1].upper() + text[1:],
    }
    return environment


def percent(share: float | None, digits: int = 1) -> str:
    """A share as per cent, with a true minus and never "-0.0"; a dash for nothing scored."""
    return "–" if share is None else f"{_points(share, digits):.{digits}f}".replace("-", "−")


def signed(share: float | None, digits: int = 1) -> str:
    """A difference of shares in points, with its sign unless it rounds to zero; a dash for nothing scored."""
    if share is None:
        return "–"
    points = _points(share, digits)
    return f"{points:+.{digits}f}".replace("-", "−") if points else f"{points:.{digits}f}"


def _points(share: float, digits: int) -> float:
    return round(100 * share, digits) + 0.0  # -0.0 becomes 0.0


def _p_value(p: float | None) -> str:
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _count(number: float | None) -> str:
    return "–" if number is None else f"{number:,.0f}"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Seconds as people say them: hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60:,} h {minutes % 60} min"
        if minutes >= 60
        else f"{minutes} min {rest} s"
        if minutes
        else f"{rest} s"
    )


def _breakable(name: str) -> Any:
    """A name that may wrap after its dots, dashes, underscores and slashes."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"([._/:-])", r"\1<wbr>", str(escape(name))))


def changed_words(caption: str, negative: str) -> list[tuple[str, bool]]:
    """The negative's words, each with whether the caption lacks it in that place."""
    words = negative.split()
    matcher = difflib.SequenceMatcher(None, caption.lower().split(), negative.lower().split(), autojunk=False)
    kept = {place for block in matcher.get_matching_blocks() for place in range(block.b, block.b + block.size)}
    return [(word, place not in kept) for place, word in enumerate(words)]


def markdown(text: Any) -> str:
    """Text from data in a line or table cell of Markdown: nothing of it may become markup."""
    plain = " ".join(str(text).split())
    for sign in "\\`*_[]|#~":
        plain = plain.replace(sign, f"\\{sign}")
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
