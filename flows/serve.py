"""Prefect's processes: the server `degla run` brings along, and `degla serve`: server, work pool, deployments, worker.

Every process started here ends with this one, even when this one is killed with -9.
"""

import atexit
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.assets import IMPORT_ROOT, ROOT
from pipeline.child_log import ChildLog
from pipeline.errors import UserError
from pipeline.store import Store

START_SECONDS = 180
PORT = 4200
"""Of `degla serve`, where none is named; prefect.toml has it as well."""
ENDS = ("completed", "failed", "crashed", "cancelled")
"""How a flow run ends, as `degla notify --when` takes it."""
_CHILD = """
import os, runpy, sys
from pipeline.lifeline import die_with
die_with(int(sys.argv.pop(1)))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


class NoServerError(UserError):
    """Prefect's server did not start."""


def settings(store: Store, url: str | None = None) -> None:
    """Set what Prefect reads at import: everything it keeps goes below the home, and nothing leaves the machine.

    Args:
        store: whose home it is.
        url: of the API; None leaves the choice to the environment and to prefect.toml.
    """
    home = store.home / "prefect"
    ours = url.removesuffix("/api") if url else "http://127.0.0.1"
    defaults = {
        "PREFECT_HOME": home,
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": home / "storage",
        "PREFECT_SERVER_MEMO_STORE_PATH": home / "memo_store.toml",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # Else any page in the user's browser may call the API, and with it run code here.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{ours},{ours.replace('127.0.0.1', 'localhost')}",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "DO_NOT_TRACK": "1",
        # What the stages' children print (pipeline/child_log.py) is for the UI, within a flow run.
        "PREFECT_LOGGING_EXTRA_LOGGERS": "degla",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        # The terminal shows our bars and our one-line errors; Prefect's own log goes to its server.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL": "CRITICAL",
    }
    for key, value in defaults.items():
        os.environ.setdefault(key, str(value))
    (home / "logs").mkdir(parents=True, exist_ok=True)
    if url:
        os.environ["PREFECT_API_URL"] = url


def gpu_limit() -> str:
    """Name of the concurrency limit of whoever uses the GPU; empty where there is none."""
    return os.environ.get("DEGLA_GPU_LIMIT", "gpu" if shutil.which("nvidia-smi") else "")


def configured_url() -> str | None:
    """The API's address by the environment, else by prefect.toml in the current folder."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    import tomllib

    with suppress(OSError, KeyError, tomllib.TOMLDecodeError), Path("prefect.toml").open("rb") as handle:
        return str(tomllib.load(handle)["api"]["url"])
    return None


def answers(url: str | None) -> bool:
    """Whether a Prefect server answers at that address."""
    from urllib.request import urlopen  # a whole HTTP client, which the command line seldom needs

    if url:
        with suppress(OSError, ValueError), urlopen(f"{url}/health", timeout=2) as reply:  # noqa: S310
            return bool(reply.status == 200)
    return False


def find_server(store: Store) -> None:
    """Prefect's settings for this process, with the configured server where it answers, else one of our own.

    Prefect would start one by itself, but that outlives a caller killed with -9. Call before `prefect` is imported: our
    own server ends with the interpreter, after Prefect has sent it its last logs and states.
    Raises NoServerError when our own does not start.
    """
    settings(store)
    logging.raiseExceptions = False  # that a lost server takes no more lines is not for the terminal
    if answers(configured_url()):
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ["PREFECT_API_URL"] = url = f"http://127.0.0.1:{port}/api"
    # Were it lost, it would not come back: each call gives up after 14 seconds, not after a minute.
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "3")
    application = ("--factory", "prefect.server.api.server:create_app", "--log-level", "error")
    # As Prefect starts its own: without the UI and without the services that only schedules need.
    small = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    log = store.home / "prefect" / "logs" / "embedded.log"
    stack = ExitStack()
    atexit.register(stack.close)
    words = [*application, "--host", "127.0.0.1", "--port", str(port)]
    _wait(stack.enter_context(_child("uvicorn", words, log, small)), url, log)


def notify(store: Store, address: str, ends: tuple[str, ...]) -> str:
    """Have the server that stays tell a webhook when flow runs of degla end so; returns the server's address.

    Raises UserError when none answers, or for an address that is none.
    """
    url = configured_url() or f"http://127.0.0.1:{PORT}/api"
    if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
        raise UserError("notify", f"{address!r} is no address", "https://...", "give the webhook's address")
    if not answers(url):
        raise UserError(
            "notify", f"no Prefect server answers at {url}", "one that stays", "degla serve, or set PREFECT_API_URL"
        )
    settings(store, url)
    from flows import automations  # Prefect, which reads its settings when it is imported

    automations.notify(address, ends)
    return url


def serve(store: Store, port: int) -> None:
    """Run until interrupted. Raises UserError when the port is taken or a part does not start."""
    logs = store.home / "prefect" / "logs"
    url = f"http://127.0.0.1:{port}/api"
    told = "" if configured_url() == url else f"PREFECT_API_URL={url} "
    settings(store, url)
    if answers(url):
        raise UserError(
            "serve", f"a Prefect server already answers on port {port}", "a free port", "degla serve --port N"
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does, so a port just left is free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(
                "serve", f"port {port} cannot be had ({error.strerror})", "a free port", "degla serve --port N"
            ) from None
    for stop in (signal.SIGINT, signal.SIGTERM):  # also where a script started us with SIGINT ignored
        signal.signal(stop, signal.default_int_handler)
    with ExitStack() as stack:
        server = stack.enter_context(
            _child("prefect", ["server", "start", "--host", "127.0.0.1", "--port", str(port)], logs / "server.log")
        )
        _wait(server, url, logs / "server.log")
        _prefect("work-pool", "create", "degla-local", "--type", "process", "--overwrite")
        if limit := gpu_limit():
            _prefect("gcl", "create", limit, "--limit", "1", tolerate="already exists")
        _prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(ROOT / "prefect.yaml"))
        from flows import automations  # as above

        automations.mark_crashed(ENDS)
        worker = stack.enter_context(
            _child("prefect", ["worker", "start", "--pool", "degla-local"], logs / "worker.log")
        )
        print(
            f"serving on http://127.0.0.1:{port} (logs in {logs})\n"
            f"in another terminal:  {told}prefect deployment run degla/full --watch\n"
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
def _child(
    module: str, words: Sequence[str], log: Path, environment: Mapping[str, str] = {}
) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m module words...` in its own session, so that leaving the block ends it and whatever it started."""
    path = os.pathsep.join(filter(None, (str(IMPORT_ROOT), os.environ.get("PYTHONPATH"))))
    with ChildLog(module, log).end as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(os.getpid()), module, *words],
            stdin=subprocess.DEVNULL,
            stdout=output.fileno(),
            stderr=output.fileno(),
            start_new_session=True,
            env={**os.environ, **environment, "PYTHONPATH": path},
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


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if answers(url):
            return
        time.sleep(0.2)
    raise NoServerError("serve", "the Prefect server did not start", f"health within {START_SECONDS} s", f"see {log}")
