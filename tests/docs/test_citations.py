"""What the pages cite (files, and tests by name) is there."""

import ast
import re
from pathlib import Path

import pytest

from tests.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / ".github").rglob("*.md")])
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)")
FILE = re.compile(r"(?:pipeline|stages|flows|tests|scripts|data|docs)/[\w./-]+|benchmarks/\w+\.py")


def functions_of(path: Path) -> set[str]:
    """Names of the functions of a test file."""
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def missing(text: str) -> list[str]:
    """The cited files and tests that are not there; `::name` is a test of the file cited last in the same line."""
    found = []
    for line in text.splitlines():
        file = None
        for span in SPAN.findall(line):
            if "<" in span or "*" in span:
                continue  # a pattern of names
            path, colons, name = span.partition("::")
            if path.endswith(".py") and (colons or path.startswith("tests/")):
                file = ROOT / path
                if not file.is_file():
                    found.append(path)
            elif match := FILE.match(span):
                path = match[0].rstrip(".")
                if not (ROOT / path).exists():
                    found.append(path)
            if re.fullmatch(r"test_\w+", name) and (
                file is None or not file.is_file() or name not in functions_of(file)
            ):
                found.append(span)
    return found


def anchors(page: Path) -> set[str]:
    """The names that a link may give after #, as forges make them of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_cited_file_and_test_is_there(page: Path) -> None:
    assert missing(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            path = page.parent / target if target else page
            assert path.exists(), target
            assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if page.name not in index] == []


def test_what_is_not_there_is_found() -> None:
    assert missing("`tests/docs/test_citations.py::test_what_is_not_there_is_found`, `pipeline/schema.py: PAIRS`") == []
    assert missing("`tests/docs/test_citations.py::test_gone`, `::test_too`") == [
        "tests/docs/test_citations.py::test_gone",
        "::test_too",
    ]
    assert missing("`stages/gone.py: X` and `tests/gone.py` and `data/benchmarks.yaml`") == [
        "stages/gone.py",
        "tests/gone.py",
    ]
