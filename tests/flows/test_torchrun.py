"""Training that torchrun starts: the bits of an undisturbed run, though a process is killed in the middle."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from stages.road import Run
from tests.paths import ROOT
from tests.stages.training import small_clip

pytestmark = pytest.mark.slow

BEFORE = ("ingest", "generate", "assemble")
FRESH = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"  # without it torchrun does not let a new host take a lost one's place
LONG = ("train.epochs=12", "train.checkpoint_steps=5", "train.batch=4")


@pytest.fixture(scope="module")
def assembled(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Path:
    home = tmp_path_factory.mktemp("home")
    model = small_clip(tmp_path_factory.mktemp("model"))  # the recipe's has BatchNorm, which needs whole batches
    settings = [*LONG, f"train.model={model}", f"assemble.tokenizer={model}"]
    run = Run.open("tiny", settings, recipe=str(tiny_recipe), home=home)
    for name in BEFORE:
        run.make(name)
    return home


class Host(NamedTuple):
    """A network namespace: its name, its address, its interface."""

    name: str
    address: str
    interface: str


def torchrun(home: Path, *where: str, count: int = 2, host: Host | None = None) -> subprocess.Popen[str]:
    """Start it here, or on a host."""
    inside = ("ip", "netns", "exec", host.name) if host else ()
    outside = {"GLOO_SOCKET_IFNAME": host.interface, FRESH: "1"} if host else {}
    command = [*inside, sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}"]
    return subprocess.Popen(
        [*command, *(where or ("--standalone",)), "--max-restarts=3", "-m", "flows.torchrun", "tiny"],
        env=os.environ | {"DEGLA_HOME": str(home), "OMP_NUM_THREADS": "1"} | outside,
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """Two hosts that reach each other and nothing else; what runs there ends with the test."""
    found = [Host(f"degla{os.getpid()}-{n}", f"10.77.0.{n}", f"dg{os.getpid()}-{n}") for n in (1, 2)]

    def ip(*words: str) -> str:
        return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout

    try:
        try:
            for host in found:
                ip("netns", "add", host.name)
            ip("link", "add", found[0].interface, "type", "veth", "peer", "name", found[1].interface)
            for name, address, interface in found:
                ip("link", "set", interface, "netns", name)
                ip("-n", name, "addr", "add", f"{address}/24", "dev", interface)
                ip("-n", name, "link", "set", interface, "up")
                ip("-n", name, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("makes network namespaces, which takes root and iproute2")
        yield found
        for host in found:
            for pid in ip("netns", "pids", host.name).split():
                os.kill(int(pid), signal.SIGKILL)
    finally:
        for host in found:
            subprocess.run(["ip", "netns", "delete", host.name], capture_output=True, check=False)


def workers(parent: int) -> list[int]:
    """Processes that torchrun started, by rank."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    found: dict[int, int] = {}
    for child in children:
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        found |= {int(one[5:]): int(child) for one in environment if one.startswith(b"RANK=")}
    return [found[rank] for rank in sorted(found)]


def weights(home: Path) -> dict[str, str]:
    files = Run.open("tiny", home=home)["model"].manifest.files
    return {name: digest for name, digest in files.items() if name.endswith(".safetensors")}


def until_a_checkpoint(home: Path, process: subprocess.Popen[str]) -> None:
    while not list(home.glob("store/model/*.partial/.work/checkpoint-*.pt")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def finished(home: Path, *processes: subprocess.Popen[str]) -> dict[str, str]:
    for process in processes:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    return weights(home)


def test_a_process_killed_in_the_middle_changes_no_bit(assembled: Path, tmp_path: Path) -> None:
    whole, home = [Path(shutil.copytree(assembled, tmp_path / name, symlinks=True)) for name in ("whole", "killed")]
    undisturbed = finished(whole, torchrun(whole))
    killed = torchrun(home)
    until_a_checkpoint(home, killed)
    os.kill(workers(killed.pid)[1], signal.SIGKILL)
    assert finished(home, killed) == undisturbed


@pytest.mark.root
def test_a_host_lost_in_the_middle_and_replaced_changes_no_bit(
    assembled: Path, hosts: list[Host], tmp_path: Path
) -> None:
    whole, home = [Path(shutil.copytree(assembled, tmp_path / name, symlinks=True)) for name in ("whole", "lost")]

    def start(home: Path, number: int) -> subprocess.Popen[str]:
        meeting = ["--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint={hosts[0].address}:29400", "--rdzv-id=degla"]
        conf = f"--rdzv-conf=is_host={int(number == 0)},keep_alive_interval=1,keep_alive_max_attempt=2"
        own = f"--local-addr={hosts[number].address}"
        return torchrun(home, *meeting, conf, own, count=1, host=hosts[number])

    undisturbed = finished(whole, start(whole, 0), start(whole, 1))
    first, lost = start(home, 0), start(home, 1)
    until_a_checkpoint(home, first)
    for pid in [*workers(lost.pid), lost.pid]:
        os.kill(pid, signal.SIGKILL)
    lost.wait()
    assert finished(home, first, start(home, 1)) == undisturbed


def test_a_batch_that_cannot_be_shared_is_told_in_one_line(assembled: Path) -> None:
    process = torchrun(assembled, count=3)
    _, said = process.communicate(timeout=300)
    assert process.returncode
    assert "train: batch 4 cannot be shared by 3 processes" in said
