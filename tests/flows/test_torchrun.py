"""Training that torchrun starts: the bits of an undisturbed run, though a process is killed in the middle."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows import recipe, road
from pipeline.artifact import Store
from tests.flows.test_road import quiet
from tests.stages.training import small_clip

ROOT = Path(__file__).parents[2]
BEFORE = ("ingest", "generate", "assemble")
LONG = ("train.epochs=12", "train.checkpoint_steps=5", "train.batch=4")


@pytest.fixture(scope="module")
def assembled(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Path:
    home = tmp_path_factory.mktemp("home")
    model = small_clip(tmp_path_factory.mktemp("model"))  # the recipe's has BatchNorm, which needs whole batches
    resolved = recipe.load(str(tiny_recipe), [*LONG, f"train.model={model}", f"assemble.tokenizer={model}"])
    road.keep_recipe(Store(home), "tiny", resolved)
    for name in BEFORE:
        road.run_stage(Store(home), "tiny", resolved, name, quiet)
    return home


def torchrun(home: Path, count: int = 2) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    return subprocess.Popen(
        [*command, "--max-restarts=1", "-m", "flows.torchrun", "tiny"],
        env=os.environ | {"DEGLA_HOME": str(home), "OMP_NUM_THREADS": "1"},
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def workers(parent: int) -> list[int]:
    """Processes that torchrun started, by rank."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    found = {}
    for child in children:
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        found |= {int(one[5:]): int(child) for one in environment if one.startswith(b"RANK=")}
    return [found[rank] for rank in sorted(found)]


def weights(home: Path) -> dict[str, str]:
    files = Store(home).linked("tiny", "model").manifest.files
    return {name: digest for name, digest in files.items() if name.endswith(".safetensors")}


def test_a_process_killed_in_the_middle_changes_no_bit(assembled: Path, tmp_path: Path) -> None:
    homes = [Path(shutil.copytree(assembled, tmp_path / name, symlinks=True)) for name in ("whole", "killed")]
    whole = torchrun(homes[0])
    _, said = whole.communicate(timeout=300)
    assert whole.returncode == 0, said
    killed = torchrun(homes[1])
    while not list(homes[1].glob("store/model/*.partial/.work/checkpoint-*.pt")):
        assert killed.poll() is None, killed.stderr.read()
        time.sleep(0.02)
    victim = workers(killed.pid)[1]
    os.kill(victim, signal.SIGKILL)
    _, said = killed.communicate(timeout=300)
    assert killed.returncode == 0, said
    assert weights(homes[0]) == weights(homes[1])


def test_a_batch_that_cannot_be_shared_is_told_in_one_line(assembled: Path) -> None:
    process = torchrun(assembled, count=3)
    _, said = process.communicate(timeout=300)
    assert process.returncode
    assert "train: batch 4 cannot be shared by 3 processes" in said
