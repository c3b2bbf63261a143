"""What mkdocs does for degla beside its own work: a page per package from its docstrings, and links out of docs/.

API pages are not files: they follow the code. Pages link to files of the checkout (`../data/benchmarks.yaml`), which
works where the repository is browsed; a site has no such files, so there the link becomes its text, if the file exists.
"""

import logging
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
ROOTS = ("degla", "pipeline", "stages", "flows")
LINK = re.compile(r"\[([^\]]*)\]\((\.\./[^)#\s]*)(#[^)\s]*)?\)")
INTRODUCTION = "In an installed wheel this is `degla.{package}`; in a checkout, and on this page, `{package}`.\n"

log = logging.getLogger("mkdocs.hooks.degla")


def packages() -> list[Path]:
    """Folders of all packages, relative to the checkout."""
    found = (path.parent.relative_to(ROOT) for root in ROOTS for path in (ROOT / root).rglob("__init__.py"))
    return sorted(found)


def page(package: Path) -> str:
    """The Markdown of a package's page: itself, then each of its modules."""
    name = ".".join(package.parts)
    modules = sorted(path.stem for path in (ROOT / package).glob("*.py") if not path.stem.startswith("_"))
    introduction = "" if name == "degla" else INTRODUCTION.format(package=name)
    return "\n".join([f"# {name}\n", introduction, f"::: {name}\n", *(f"::: {name}.{module}\n" for module in modules)])


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the API pages."""
    for package in packages():
        name = ".".join(package.parts)
        files.append(File.generated(config, f"api/{name}.md", content=page(package)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to files of the checkout outside docs/ become text. Warns of one that is not there."""

    def unlinked(link: re.Match[str]) -> str:
        if not (ROOT / "docs" / link[2]).exists():
            log.warning("%s links to %s, which is not there", page.file.src_path, link[2])
        return link[1]

    return LINK.sub(unlinked, markdown)
