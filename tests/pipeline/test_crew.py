import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from pipeline.crew import Crew
from pipeline.errors import TransientError, UserError
from tests.paths import ROOT


def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def late_when_small(number: int) -> int:
    time.sleep(0.3 if number == 0 else 0)
    return number


def refuse(number: int) -> int:
    raise UserError("generate", f"no {number}", "another", "none")


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_one_item_or_one_process_stays_in_this_one() -> None:
    with Crew("generate", 1) as alone, Crew("generate", 8) as many:
        assert list(alone.map(square, range(3))) == [(n * n, os.getpid()) for n in range(3)]
        assert list(many.map(square, [3])) == [(9, os.getpid())]


def test_results_come_in_order_from_other_processes_and_errors_come_through() -> None:
    with Crew("generate", 2) as crew:
        results, processes = zip(*crew.map(square, range(20)), strict=True)
        assert list(results) == [n * n for n in range(20)] and os.getpid() not in processes
        assert list(crew.map(late_when_small, range(6))) == list(range(6))
        with pytest.raises(UserError, match="no 1"):
            list(crew.map(partial(refuse), [1, 2]))
    with pytest.raises(TransientError, match="generate: one of 2 processes was killed"), Crew("generate", 2) as crew:
        list(crew.map(die, range(4)))


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
import time
from pipeline.crew import Crew

print("main", flush=True)
with Crew("generate", 2) as crew:
    print(*crew.map({work}, {items}), flush=True)
"""


def test_a_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=str(ROOT), work="abs", items="[-1, -2, -3]"))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("main\n1 2 3\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a killed process")
def test_no_process_outlives_a_kill(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=str(ROOT), work="time.sleep", items="[60, 60]"))
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline, mine = time.monotonic() + 60, list[str]()
    while time.monotonic() < deadline and len(mine) < 3:  # two, and the tracker of resources
        mine = children.read_text().split()
        time.sleep(0.1)
    time.sleep(2)  # until they have said whom they die with
    process.kill()
    process.wait()
    while time.monotonic() < deadline and (left := [pid for pid in mine if _is_alive(pid)]):
        time.sleep(0.1)
    assert len(mine) == 3 and not left


def _is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
