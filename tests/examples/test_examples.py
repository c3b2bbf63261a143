"""The examples run as a reader would run them, in a fresh folder; what they import from `degla` is its public face."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import degla
from tests.paths import ROOT
from tests.stages.small_road import write_benchmarks

FOLDER = ROOT / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))
TOUR = FOLDER / "tour.ipynb"


def environment(home: Path) -> dict[str, str]:
    """This environment, with the checkout on the path and a home of one's own."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return os.environ | {"DEGLA_HOME": str(home), "PYTHONPATH": path}


def run(name: str, folder: Path, *words: str) -> str:
    """What a script prints; the folder is where it is started, and holds its home."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / name), *words],
        cwd=folder, env=environment(folder / "home"), capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_quickstart_makes_a_run_and_then_reuses_it(tmp_path: Path, tiny_recipe: Path) -> None:
    said = run("quickstart.py", tmp_path, str(tiny_recipe), "first")
    assert re.findall(r"^(\w+) +made ", said, re.MULTILINE) == list(degla.STAGES)
    assert "scores as Arrow, columns model, benchmark, correct" in said
    assert re.search(r"│ heldout .*│ replace_nouns ", said)
    page = Path(said.split("report: ")[1].strip())
    assert (tmp_path / page).is_relative_to(tmp_path / "home") and (tmp_path / page).exists()
    assert len(re.findall(r"^\w+ +reused ", run("quickstart.py", tmp_path, str(tiny_recipe), "first"), re.M)) == 6


def test_own_images_trains_on_a_folder_and_compares_an_image_with_captions(tmp_path: Path, tiny_recipe: Path) -> None:
    small = ["train.epochs=1", "train.batch=4", "train.warmup=1", "train.workers=0"]
    loose = ["generate.max_reject_rate=1.0", "ingest.val_share=0.0", "ingest.test_share=0.3"]
    said = run("own_images.py", tmp_path, str(tiny_recipe.parent), *small, *loose)
    student = Path(said.split("model: ")[1].split(" (")[0])
    assert (tmp_path / student / "open_clip_model.safetensors").exists()
    similarities = re.findall(r"^([+-][01]\.\d{3})  red-circle\.png  (.+)$", said, re.MULTILINE)
    assert len(similarities) == 3 and all(-1 <= float(one) <= 1 for one, _ in similarities)
    assert similarities[0][1] == "A red circle stands beside a green house."


@pytest.mark.slow
def test_own_loss_trains_with_its_term_and_an_edited_term_is_another_model(tmp_path: Path, tiny_recipe: Path) -> None:
    said = run("own_loss.py", tmp_path, str(tiny_recipe))
    assert "margin_loss" in said and re.search(r"^train +made ", said, re.MULTILINE)
    losses = [float(one) for one in re.findall(r"│ +\d+ │ +[\d.]+ │ +([\d.]+) │", said)]
    assert losses and all(0 < one < 2.2 for one in losses)
    assert re.search(r"^train +reused ", run("own_loss.py", tmp_path, str(tiny_recipe)), re.MULTILINE)

    edited = tmp_path / "edited.py"
    edited.write_text((FOLDER / "own_loss.py").read_text().replace("(0.2 +", "(0.3 +"))
    again = run(str(edited), tmp_path, str(tiny_recipe))
    assert re.search(r"^train +made ", again, re.MULTILINE) and re.search(r"^assemble +reused ", again, re.MULTILINE)


def test_score_a_model_prints_an_interval_for_every_aggregate(tmp_path: Path) -> None:
    write_benchmarks(tmp_path / "benchmarks")
    tower = shutil.copytree(ROOT / "data" / "clip_tiny", tmp_path / "tower")
    said = run("score_a_model.py", tmp_path, str(tower), "benchmarks", "--no-official", "--benchmarks", "sugarcrepe")
    assert re.search(r"^sugarcrepe\.mean_files +\d+\.\d% +\[\d+\.\d%, \d+\.\d%\] +50\.0% +8$", said, re.MULTILINE), said
    assert not (tmp_path / "home").exists(), "no run is made"


@pytest.mark.slow
def test_the_tour_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))  # no kernel or setting of whoever runs the tests
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(TOUR, as_version=4)
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    assert all(outputs.values()), "every cell shows something"
    printed = {cell: "".join(one.get("text", "") for one in found) for cell, found in outputs.items()}
    assert printed["make"].count(" made ") == 6
    assert printed["scores"].startswith("composition ")
    assert "replace_nouns" in outputs["negatives"][0].data["text/plain"]
    assert all("image/png" in outputs[cell][-1].data for cell in ("image", "steps"))
    similar = ast.literal_eval(outputs["similarity"][0].data["text/plain"])
    assert len(similar) == 2 and all(-1 <= one <= 1 for one in similar)


def test_the_tour_is_kept_without_outputs_and_small() -> None:
    cells = json.loads(TOUR.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert TOUR.stat().st_size < 20_000
    nbformat.validate(nbformat.read(TOUR, as_version=4))


def test_everything_public_is_imported_without_torch_or_prefect() -> None:
    code = (
        f"import sys; from degla import {', '.join(degla.__all__)}; "
        "print(sorted({'torch', 'prefect', 'open_clip', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stdout + done.stderr


@pytest.mark.parametrize("path", [*SCRIPTS, TOUR], ids=lambda path: path.name)
def test_an_example_imports_only_what_degla_makes_public(path: Path) -> None:
    source = path.read_text()
    if path == TOUR:
        source = "\n".join(
            cell.source for cell in nbformat.reads(source, as_version=4).cells if cell.cell_type == "code"
        )
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {
        node.module if isinstance(node, ast.ImportFrom) else alias.name for node in imports for alias in node.names
    }
    assert not [name for name in modules if name and name.split(".")[0] in ("pipeline", "stages", "flows")]
    names = [
        alias.name
        for node in imports
        if isinstance(node, ast.ImportFrom) and node.module == "degla"
        for alias in node.names
    ]
    assert names and set(names) <= set(degla.__all__)


def test_the_index_names_every_example() -> None:
    named = re.findall(r"\]\(([\w.]+)\)", (FOLDER / "README.md").read_text())
    assert sorted(named) == sorted(path.name for path in (*SCRIPTS, TOUR))


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"pictures": 0}, "evaluate.pictures is wrong"), ({"root": None}, "no folder of benchmarks is given")],
)
def test_measuring_with_a_wrong_setting_is_an_error_of_one_line(settings: dict[str, object], says: str) -> None:
    with pytest.raises(degla.UserError, match=says):
        degla.measure({}, **settings)
