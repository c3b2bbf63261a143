"""What the tests of the report share: an artifact with another manifest, and a page read back as HTML."""

import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact


def altered(artifact: Artifact, **manifest: Any) -> Artifact:
    """The same artifact, whose manifest says something else."""
    return dataclasses.replace(artifact, manifest=artifact.manifest.model_copy(update=manifest))


def with_aggregate(scores: Artifact, name: str, official: bool | None = None, **changes: Any) -> Artifact:
    """The same scores, one aggregate of which says something else."""
    meta = json.loads(json.dumps(scores.meta))
    meta["aggregates"][name] |= changes
    return altered(scores, meta=meta if official is None else meta | {"official": official})


class Tags(HTMLParser):
    """The tags of a page with their attributes, its text, and what was never closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(path: Path) -> Tags:
    """A page, every tag of which is closed."""
    tags = Tags()
    tags.feed(path.read_text())
    assert not tags.open, f"never closed: {tags.open}"
    return tags
