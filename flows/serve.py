"""A whole local Prefect in one command: server, process work pool, deployments, worker. Ctrl-C stops all of it."""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipeline.artifact import Store
from pipeline.errors import UserError

START_SECONDS = 180


def serve(store: Store, port: int) -> None:
    """Run until interrupted. Raises UserError when the port is taken or a part does not start."""
    logs = store.home / "prefect" / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    health = f"http://127.0.0.1:{port}/api/health"
    if _healthy(health):
        raise UserError(
            "serve", f"a Prefect server already answers on port {port}", "a free port", "degla serve --port N"
        )
    for stop in (signal.SIGINT, signal.SIGTERM):  # also where a script started us with SIGINT ignored
        signal.signal(stop, signal.default_int_handler)
    with ExitStack() as stack:
        server = stack.enter_context(
            _child(["server", "start", "--host", "127.0.0.1", "--port", str(port)], logs / "server.log")
        )
        _wait(server, health, logs / "server.log")
        _prefect("work-pool", "create", "degla-local", "--type", "process", "--overwrite")
        if shutil.which("nvidia-smi"):
            _prefect("gcl", "create", "gpu", "--limit", "1", tolerate="already exists")
        _prefect("--no-prompt", "deploy", "--all")
        worker = stack.enter_context(_child(["worker", "start", "--pool", "degla-local"], logs / "worker.log"))
        print(
            f"serving on http://127.0.0.1:{port} (logs in {logs})\n"
            "in another terminal:  prefect deployment run degla/full --watch\n"
            "Ctrl-C stops everything",
            flush=True,
        )
        try:
            while server.poll() is None and worker.poll() is None:
                time.sleep(1)
        except KeyboardInterrupt:
            print("stopping", flush=True)
            return
        gone = "server" if server.poll() is not None else "worker"
        raise UserError("serve", f"the {gone} stopped by itself", "it to run until Ctrl-C", f"see {logs}/{gone}.log")


def _prefect(*words: str, tolerate: str = "") -> None:
    done = subprocess.run([sys.executable, "-m", "prefect", *words], capture_output=True, text=True)
    if done.returncode and not (tolerate and tolerate in done.stdout + done.stderr):
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise UserError("serve", f"`prefect {' '.join(words)}` failed: {' '.join(last)}", "success", "run it by hand")


@contextmanager
def _child(words: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Prefect process in its own session, so that leaving the block ends it and whatever it started."""
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *words], stdout=sink, stderr=sink, start_new_session=True
        )
    try:
        yield process
    finally:
        for how, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
            try:
                os.killpg(process.pid, how)
                process.wait(patience)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue


def _wait(server: subprocess.Popen[bytes], health: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        if _healthy(health):
            return
        time.sleep(0.5)
    raise UserError("serve", "the Prefect server did not start", f"health within {START_SECONDS} s", f"see {log}")


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:  # noqa: S310 - loopback
            return bool(reply.status == 200)
    except (OSError, urllib.error.URLError):
        return False
