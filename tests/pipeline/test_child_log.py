"""Real children: what they print is kept, and logged with its level until there is too much of it."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import child_log
from pipeline.child_log import ChildLog


def heard(script: str, file: Path) -> None:
    log = ChildLog("child", file)
    with log.end as end:
        subprocess.run([sys.executable, "-c", script], stdout=end.fileno(), stderr=subprocess.STDOUT)
    log.join()


@pytest.fixture(autouse=True)
def level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "degla")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("loading", logging.INFO),
        ("INFO 11-23 17:58:10 [core.py:123] after ValueError: goes on", logging.INFO),
        ("(EngineCore pid=7) WARNING 11-23 17:58:10 [cpu.py:5] no NUMA", logging.WARNING),
        ("lib.py:3: UserWarning: deprecated", logging.WARNING),
        ("[W1123 17:58:10.12 socket.cpp:1] slow", logging.WARNING),
        ("[rank0]:[E1123 17:58:10.12 nccl.cpp:1] lost", logging.ERROR),
        ("Traceback (most recent call last):", logging.ERROR),
        ("torch.OutOfMemoryError: 3 GiB", logging.ERROR),
    ],
)
def test_a_line_has_the_level_it_names(
    line: str, expected: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heard(f"print({line!r})", tmp_path / "log")
    assert caplog.record_tuples == [("degla.child", expected, line)]


def test_bars_broken_text_and_debug_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    script = r"import os; os.write(2, b'1%|\r2%|\r\n\nDEBUG: detail\ncaf\xff 100%s')"
    heard(script, tmp_path / "log")
    assert caplog.messages == ["1%|", "2%|", "caf\N{REPLACEMENT CHARACTER} 100%s"]
    assert (tmp_path / "log").read_text().splitlines() == [*caplog.messages[:2], "DEBUG: detail", caplog.messages[2]]


def test_the_log_is_bounded_and_says_how_much_is_in_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_log, "ORDINARY", 20)
    heard("for i in range(100): print('line', i)\nprint('WARNING: late')", tmp_path / "log")
    assert caplog.messages[:20] == [f"line {i}" for i in range(20)]
    assert caplog.messages[20:] == [
        "WARNING: late", f"80 more lines are only in {tmp_path / 'log'}, as long as the stage is at work"
    ]  # fmt: skip
    assert len((tmp_path / "log").read_text().splitlines()) == 101


def test_the_file_is_bounded_and_keeps_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_log, "FILE_BYTES", 1000)
    heard("for i in range(1000): print('line', i)", tmp_path / "log")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * (1000 + len("line 999\n"))
    assert (tmp_path / "log").read_text().endswith("line 999\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_loses_lines_and_stops_no_child(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").symlink_to("/dev/full")
    heard("print('x' * 200_000); print('ERROR: said all the same')", tmp_path / "log")
    assert caplog.messages[-1] == "ERROR: said all the same"
    assert capfd.readouterr() == ("", "")
