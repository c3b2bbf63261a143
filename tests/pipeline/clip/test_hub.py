"""Models of the hub: its real client against a hub on this machine, in a process of its own, as the client reads
`HF_ENDPOINT` once."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from pipeline import clip
from tests.paths import ROOT
from tests.pipeline.clip.hub import Hub, listening

PROBE = """
import json, sys
from pipeline import clip
from pipeline.errors import UserError

def load(*model):
    try:
        found = clip.load(*model)
    except UserError as error:
        return str(error)
    return [clip.embed_texts(found, ["a red cup"]).tolist(), found.description["activation"]]

print(json.dumps([load(*name.split()) for name in sys.argv[1:]]))
"""


def loaded(hub: Hub, home: Path, *models: str) -> list[Any]:
    """What `clip.load` gives for each: the embedding of a text and the activation, or its error."""
    environment = os.environ | hub.environment(home) | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    found = subprocess.run(
        [sys.executable, "-c", PROBE, *models], env=environment, capture_output=True, text=True, timeout=280
    )
    assert found.returncode == 0, found.stderr[-2000:]
    return list(json.loads(found.stdout))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with listening() as found:
        folder = tmp_path_factory.mktemp("hub")
        clip.save(clip.load("data/clip_tiny", seed=3), folder / "small")
        (folder / "small" / clip.CARD).unlink()  # other people's repositories have none
        for name in ("breaks", "gated", "empty"):
            shutil.copytree(folder / "small", folder / name)
        (folder / "empty" / clip.WEIGHTS).unlink()
        found.breaks[folder / "breaks" / clip.WEIGHTS] = 11 << 20
        found.repositories = {f"owner/{path.name}": path for path in folder.iterdir()}
        found.gated.add("owner/gated")
        yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def results(hub: Hub, home: Path) -> dict[str, Any]:
    names = ("small", "breaks", "gated", "empty", "none")
    return dict(zip(names, loaded(hub, home, *(f"hf-hub:owner/{name}" for name in names)), strict=True))


def test_a_model_of_the_hub_is_the_local_one(hub: Hub, results: dict[str, Any]) -> None:
    embedded, activation = results["small"]
    model = clip.load(str(hub.repositories["owner/small"]))
    assert torch.allclose(torch.tensor(embedded), clip.embed_texts(model, ["a red cup"]), atol=1e-6)
    assert activation == model.description["activation"]


def test_a_download_that_breaks_off_goes_on_where_it_stopped(hub: Hub, home: Path, results: dict[str, Any]) -> None:
    weights = hub.repositories["owner/breaks"] / clip.WEIGHTS
    asked = [wanted for method, path, wanted in hub.asked if method == "GET" and path.endswith(str(weights))]
    assert asked == [None, f"bytes={10 << 20}-"], "the client keeps whole chunks of 10 MB"
    (kept,) = (path for path in home.rglob(clip.WEIGHTS) if "breaks" in str(path))
    assert kept.read_bytes() == weights.read_bytes() and results["breaks"] == results["small"]


def test_a_gated_model_is_one_line_that_says_how_to_get_access(hub: Hub, results: dict[str, Any]) -> None:
    assert results["gated"] == (
        "clip: hf-hub:owner/gated is gated: its owner has not given you access; expected a model you may download; "
        f"fix: ask for access on {hub.url}/owner/gated, then `hf auth login` or set HF_TOKEN"
    )


@pytest.mark.parametrize(("name", "reason"), [("empty", "404 Client Error"), ("none", "401 Client Error")])
def test_what_the_hub_does_not_have_is_one_line_and_never_random_weights(
    name: str, reason: str, results: dict[str, Any]
) -> None:
    assert results[name].startswith(f"clip: cannot load 'hf-hub:owner/{name}'") and "; fix: " in results[name]
    assert reason in results[name] and "\n" not in results[name]


@pytest.mark.slow
def test_openais_weights_by_tag_compute_quick_gelu(hub: Hub, home: Path, tmp_path: Path) -> None:
    """The file is OpenAI's in name, place, shape and size, with other numbers."""
    torch.manual_seed(0)
    network = open_clip.create_model("ViT-B-32", force_quick_gelu=True).half()
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, tmp_path / clip.WEIGHTS)
    hub.repositories["timm/vit_base_patch32_clip_224.openai"] = tmp_path
    ((embedded, activation),) = loaded(hub, home, "ViT-B-32 openai")
    assert activation == "quick_gelu"
    network = network.float().eval()
    with torch.inference_mode():
        expected = network.encode_text(open_clip.get_tokenizer("ViT-B-32")(["a red cup"]), normalize=True)
    assert torch.allclose(torch.tensor(embedded), expected, atol=1e-5)
