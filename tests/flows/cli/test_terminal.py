"""What the command line prints of foreign text."""

from io import StringIO

import pytest
from rich.table import Table

from flows.cli.terminal import out


@pytest.mark.parametrize("text", ["\x1b[31mred", "[/foo]", "[link=http://x]y[/link]", ":smile:", "\x9b31m", "a\u202eb"])
def test_foreign_text_is_printed_as_text(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = StringIO()
    monkeypatch.setattr(out, "file", shown)
    out.print(text)
    table = Table(text)
    table.add_row(text)
    out.print(table)
    printed = shown.getvalue().replace("\n", "")
    assert printed.isprintable() and printed.count(ascii(text)[1:-1] if not text.isprintable() else text) == 3
