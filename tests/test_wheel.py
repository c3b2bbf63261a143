"""The wheel, installed into an empty environment elsewhere: one package, with its data, that runs the pipeline."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import degla
from tests.paths import ROOT

pytestmark = pytest.mark.slow

SOURCES = (
    "degla", "pipeline", "stages", "flows", "data", "setup.py", "pyproject.toml", "prefect.yaml", "README.md",
    "LICENSE",
)  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that has the wheel and, of this environment, all packages but the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    checkout = folder / "checkout"
    checkout.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, checkout / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    built = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(checkout)]
    subprocess.run(built, check=True, capture_output=True, timeout=250)
    (wheel,) = folder.glob("degla-*.whl")
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=100)
    site = next(environment.glob("lib/python*/site-packages"))
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, timeout=250)
    # A folder named in a .pth file is searched, but its own .pth files, and so the checkout's, are not read; of those
    # only the one of scripts/fix_torchvision.py is wanted.
    others = Path(sysconfig.get_path("purelib"))
    fix = "import degla_torchvision\n" if (others / "degla_torchvision.py").exists() else ""
    (site / "others.pth").write_text(f"{others}\n{fix}")
    return environment


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("elsewhere")


def call(installed: Path, elsewhere: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(installed / "bin" / "python"), "-m", *words],
        cwd=elsewhere, env=environment | {"DEGLA_HOME": str(elsewhere / "home")},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip


def test_it_is_one_package_with_its_data(installed: Path, elsewhere: Path) -> None:
    (site,) = installed.glob("lib/python*/site-packages")
    assert {path.name for path in site.iterdir() if path.is_dir()} & {"pipeline", "stages", "flows", "data"} == set()
    for module in (site / "degla").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) (pipeline|stages|flows)\b", module.read_text(), re.MULTILINE), module
    assert "entrypoint: degla.flows.degla.degla" in (site / "degla" / "prefect.yaml").read_text()
    assert (site / "degla" / "py.typed").exists()
    data, installed_data = ROOT / "data", site / "degla" / "data"
    there = {path.relative_to(data) for path in data.rglob("*") if path.is_file()}
    assert there == {path.relative_to(installed_data) for path in installed_data.rglob("*") if path.is_file()}
    found = call(installed, elsewhere, "pipeline.errors")
    assert "No module named 'pipeline'" in found.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["recipe", "demo"], "source: scenes"),
        (["recipe", "nothing"], "one of "),
        (["prompt", "swap_nouns", "A red cup is on a blue table."], "A red cup is on a blue table."),
        (["doctor"], "cores and memory"),
        (["data", "list"], "sugarcrepe"),
    ],
)
def test_a_command_answers(installed: Path, elsewhere: Path, words: list[str], said: str) -> None:
    done = call(installed, elsewhere, "degla", *words)
    assert said in done.stdout + done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_the_pipeline_runs_there_through_prefect(installed: Path, elsewhere: Path, tiny_recipe: Path) -> None:
    done = call(installed, elsewhere, "degla", "run", str(tiny_recipe), "--name", "tiny")
    assert done.returncode == 0, done.stderr
    assert "no Prefect server" not in done.stderr
    assert (elsewhere / "home" / "tiny" / "report" / "report.html").exists()
    again = call(installed, elsewhere, "degla", "run", str(tiny_recipe), "--name", "tiny", "--set", "train.processes=2")
    assert again.stdout.count("reused") == 6, again.stdout + again.stderr


def test_its_door_opens_and_its_processes_find_each_other(installed: Path, elsewhere: Path, tiny_recipe: Path) -> None:
    script = elsewhere / "door.py"
    clip = "data/starting_clip"
    settings = ["train.processes=2", f"train.model={clip}", f"assemble.tokenizer={clip}"]
    script.write_text(
        "import sys\nfrom degla import Run\n"
        "assert not {'torch', 'prefect'} & set(sys.modules)\n"
        f"run = Run.open('door', {settings!r}, recipe={str(tiny_recipe)!r})\n"
        "if __name__ == '__main__':\n    print([run.make(stage).reused for stage in list(run.stages)[:4]][-1])\n"
    )
    done = call(installed, elsewhere, "door")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"


def test_the_examples_run_beside_it(installed: Path, elsewhere: Path, tiny_recipe: Path) -> None:
    shutil.copy(ROOT / "examples" / "own_loss.py", elsewhere)
    done = call(installed, elsewhere, "own_loss", str(tiny_recipe))
    assert done.returncode == 0, done.stderr
    assert "margin_loss" in done.stdout
    (elsewhere / "public.py").write_text(f"from degla import {', '.join(degla.__all__)}\n")
    assert call(installed, elsewhere, "public").returncode == 0
