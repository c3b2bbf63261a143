"""Faults of what a run leans on: Prefect's worker and server, vLLM's engine; and a flow run with children cancelled."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.chaos.faults import Outcome
from tests.chaos.lab import Alive, Lab, half_artifacts
from tests.paths import ROOT
from tests.stages.small_road import model_folder


def training(lab: Lab) -> list[str]:
    """Settings of a long training in two processes; a tower without batch norm, which cannot be shared."""
    tower = model_folder(lab.folder / "tower")
    return [f"train.model={tower}", "train.processes=2", "train.epochs=60", "train.checkpoint_steps=5"]


class Served:
    """A running `degla serve` in a home of its own."""

    def __init__(self, lab: Lab, home: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url, self._lab, self.home = f"http://127.0.0.1:{port}/api", lab, home
        command = (str(Path(sys.executable).with_name("degla")), "serve", "--port", str(port))
        self.alive = Alive(command, lab.folder / "said", DEGLA_HOME=str(home))
        said = self.alive.said / "out"
        assert self.alive.until(lambda: "serving on" in said.read_text()), self.alive.end().err

    def prefect(self, *words: str) -> str:
        """Say something by Prefect's own command line."""
        environment = os.environ | {"PREFECT_API_URL": self.url, "PREFECT_HOME": str(self.home / "prefect")}
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *words],
            cwd=ROOT, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def begin(self, deployment: str, **parameters: Any) -> str:
        """Start a flow run; its id."""
        given = [word for name, value in parameters.items() for word in ("-p", f"{name}={json.dumps(value)}")]
        said = self.prefect("deployment", "run", f"degla/{deployment}", *given)
        found = re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", said)
        assert found, said
        return found.group()

    def state(self, flow_run: str) -> str:
        """The name of a flow run's state."""
        with urllib.request.urlopen(f"{self.url}/flow_runs/{flow_run}", timeout=30) as reply:
            return str(json.load(reply)["state"]["name"])

    def until(self, flow_run: str, *names: str, patience: float = 400) -> str:
        """Wait for a state of one of these names; the state it is in."""
        deadline = time.monotonic() + patience
        while (state := self.state(flow_run)) not in names and time.monotonic() < deadline:
            time.sleep(0.5)
        return state

    def pid_of(self, *words: str) -> int:
        """The process whose command has all these words."""
        return next(pid for pid, said in self.alive.family().items() if all(word in said for word in words))


@contextmanager
def served(lab: Lab) -> Iterator[Served]:
    """Serve a home in which everything before `train` is done."""
    home = lab.before("train")
    one = Served(lab, home)
    try:
        yield one
    finally:
        one.alive.signal(signal.SIGINT)
        one.alive.end(60)
        one.alive.orphans(20)
        shutil.rmtree(home, ignore_errors=True)


def _training(one: Served, lab: Lab) -> str:
    """A flow run that trains in two processes and has written a checkpoint."""
    flow_run = one.begin("train", run=lab.run, overrides=training(lab))
    checkpoints = lambda: list((one.home / "store" / "model").glob("*.partial/.work/checkpoint-*.pt"))  # noqa: E731
    assert one.alive.until(checkpoints), one.state(flow_run)
    return flow_run


def _after(one: Served, lab: Lab, faults: list[str], status: int = 0) -> Outcome:
    """Nothing but server and worker is alive; the same deployment goes on to the end."""
    deadline = time.monotonic() + 30
    while (left := _workers(one)) and time.monotonic() < deadline:
        time.sleep(0.2)
    faults += [f"orphan: {command[:80]}" for command in left]
    faults += [f"half an artifact: {path}" for path in half_artifacts(one.home)]
    again = one.begin("train", run=lab.run, overrides=training(lab))
    if (state := one.until(again, "Completed", "Failed", "Crashed")) != "Completed":
        faults.append(f"the same deployment ended {state}")
    return Outcome(status, "", faults)


def _workers(one: Served) -> list[str]:
    own = ("serve", "server start", "worker start", "resource_tracker")
    return [said for said in one.alive.family().values() if not any(word in said for word in own)]


def cancel(lab: Lab) -> Outcome:
    """`prefect flow-run cancel` while two processes train."""
    with served(lab) as one:
        flow_run = _training(one, lab)
        one.prefect("flow-run", "cancel", flow_run)
        state = one.until(flow_run, "Cancelled", "Crashed", "Completed", patience=90)
        return _after(one, lab, [] if state == "Cancelled" else [f"the cancelled run is {state}"], status=-15)


def kill_worker(lab: Lab) -> Outcome:
    """`kill -9` of the worker: `degla serve` ends, and with it everything it started but the work at hand."""
    with served(lab) as one:
        _training(one, lab)
        os.kill(one.pid_of("worker start"), signal.SIGKILL)
        ended = one.alive.end(120)
        faults = [] if ended.error.startswith("serve: the worker stopped") else [f"said {ended.err[-200:]}"]
        faults += [f"orphan: {command[:80]}" for command in one.alive.orphans(300)]
        model = lab.start(one.home, "--only", "train", *(word for given in training(lab) for word in ("--set", given)))
        end = model.end()
        faults += [] if end.status == 0 else [f"degla run then ended with {end.status}: {end.err[-200:]}"]
        return Outcome(ended.status, ended.error, faults + model.orphans())


def kill_server(lab: Lab) -> Outcome:
    """`kill -9` of the server: `degla serve` says so and ends."""
    with served(lab) as one:
        _training(one, lab)
        os.kill(one.pid_of("server start"), signal.SIGKILL)
        ended = one.alive.end(120)
        faults = [] if ended.error.startswith("serve: the server stopped") else [f"said {ended.err[-200:]}"]
        faults += [f"orphan: {command[:80]}" for command in one.alive.orphans(300)]
        model = lab.start(one.home, "--only", "train", *(word for given in training(lab) for word in ("--set", given)))
        end = model.end()
        faults += [] if end.status == 0 else [f"degla run then ended with {end.status}: {end.err[-200:]}"]
        return Outcome(ended.status, ended.error, faults + model.orphans())


def kill_serve(lab: Lab) -> Outcome:
    """`kill -9` of `degla serve` itself."""
    with served(lab) as one:
        os.kill(one.alive.process.pid, signal.SIGKILL)
        ended = one.alive.end()
        return Outcome(ended.status, "", [f"orphan: {command[:80]}" for command in one.alive.orphans()])


def kill_engine(lab: Lab) -> Outcome:
    """`kill -9` of vLLM's engine while it answers: Prefect starts the stage again, and it goes on to the end."""
    home = lab.before("generate")
    settings = ("backend=vllm", "model=data/language_model", "prompts=scenes", "examples_per_prompt=4", "shard_size=32")
    words = ("--only", "generate", *(word for setting in settings for word in ("--set", f"generate.{setting}")))
    alive = lab.start(home, *words)
    alive.until(lambda: list(home.glob("replies/*/*/*.parquet")), patience=600)
    struck = [pid for pid, said in alive.family().items() if "stages.language_models.vllm" in said]
    for pid in struck:
        os.kill(pid, signal.SIGKILL)
    ended = alive.end(1200)
    faults = [] if struck else ["no engine was seen"]
    faults += [f"ended with {ended.status}: {ended.err.strip()[-200:]}"] if ended.status else []
    faults += [f"orphan: {command[:80]}" for command in alive.orphans()]
    faults += [f"half an artifact: {path}" for path in half_artifacts(home)]
    shutil.rmtree(home, ignore_errors=True)
    return Outcome(ended.status, ended.error, faults)


FAULTS: dict[str, tuple[str, Callable[[Lab], Outcome]]] = {
    "kill -9 of the vLLM engine": ("generate", kill_engine),
    "flow-run cancel, two processes training": ("train", cancel),
    "kill -9 of the Prefect worker": ("train", kill_worker),
    "kill -9 of the Prefect server": ("train", kill_server),
    "kill -9 of degla serve": ("train", kill_serve),
}
"""Tried once each, at the stage named."""
