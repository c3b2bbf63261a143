"""Weights as others write them: each taken with the same embeddings, or refused by the true reason."""

import json
import subprocess
import sys
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipeline import clip
from pipeline.clip import hugging_face
from pipeline.errors import UserError

TEXTS = ["a red cup on a table", "two dogs"]
ARCH = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


def written(folder: Path, arch: dict[str, Any]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / clip.CONFIG).write_text(json.dumps({"model_cfg": arch}))
    return str(folder)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The architecture in `plain/`, and a model of it in `saved/`, all of it written by degla."""
    home = tmp_path_factory.mktemp("weights")
    clip.save(clip.load(written(home / "plain", ARCH), seed=5), home / "saved")
    return home


@pytest.fixture(scope="module")
def model(home: Path) -> clip.Clip:
    return clip.load(str(home / "saved"))


def state_of(model: clip.Clip) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in model.model.state_dict().items()}


def assert_same(found: clip.Clip, model: clip.Clip, within: float = 0) -> None:
    torch.testing.assert_close(clip.embed_texts(found, TEXTS), clip.embed_texts(model, TEXTS), atol=within, rtol=0)
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = (clip.encode_image(one.model, image) for one in (model, found))
    torch.testing.assert_close(theirs, ours, atol=within, rtol=0)


CHECKPOINTS: dict[str, Any] = {
    "a state dict": lambda state: state,
    "open_clip's trainer": lambda state: {
        "epoch": 3,
        "name": "2024_05_01-model_ViT-B-32-lr_1e-05",
        "state_dict": {f"module.{name}": tensor for name, tensor in state.items()},
        "optimizer": {"state": {}, "param_groups": []},
    },
    "CoN-CLIP": lambda state: {"model": state, "args": Namespace(lr=1e-6, path="x")},
    "TripletCLIP": lambda state: {"model_state_dict": state, "optimizer_state_dict": {}, "epoch": 3},
    "TripletCLIP, a CLIPModel": lambda state: {"model_state_dict": hugging_face.to_names(state), "epoch": 3},
    "Lightning": lambda state: {
        "state_dict": {f"clip.{name}": tensor for name, tensor in state.items()} | {"loss.scale": torch.ones(1)}
    },
    "torch.compile": lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
    "OpenAI's state dict": lambda state: state | {
        "input_resolution": torch.tensor(32), "context_length": torch.tensor(77), "vocab_size": torch.tensor(49408)
    },
}  # fmt: skip


@pytest.mark.parametrize("who", CHECKPOINTS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_a_checkpoint_is_taken(model: clip.Clip, home: Path, tmp_path: Path, who: str, zipped: bool) -> None:
    file = tmp_path / "epoch_3.pt"
    torch.save(CHECKPOINTS[who](state_of(model)), file, _use_new_zipfile_serialization=zipped)
    assert_same(clip.load(str(home / "plain"), str(file)), model)


@pytest.mark.parametrize("name", ["w.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("names", [dict, hugging_face.to_names], ids=["open_clip", "CLIPModel"])
def test_safetensors_are_taken_by_content(model: clip.Clip, home: Path, tmp_path: Path, name: str, names: Any) -> None:
    save_file({key: tensor.clone() for key, tensor in names(state_of(model)).items()}, tmp_path / name)
    assert_same(clip.load(str(home / "plain"), str(tmp_path / name)), model)


class QuickGELU(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


def openai_archive(model: clip.Clip, file: Path, half: bool) -> None:
    """A traced archive as OpenAI publishes it: one module tree, three numbers as buffers, its own QuickGELU."""
    root = torch.nn.Module()
    for name, tensor in state_of(model).items():
        at = root
        *path, last = name.split(".")
        for part in path:
            if not hasattr(at, part):
                at.add_module(part, torch.nn.Module())
            at = getattr(at, part)
        at.register_parameter(last, torch.nn.Parameter(tensor.half() if half and tensor.ndim > 1 else tensor.clone()))
    for name, number in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 49408)):
        root.register_buffer(name, torch.tensor(number))
    root.add_module("gelu", QuickGELU())
    root.forward = lambda x: root.gelu(x) @ root.text_projection.float()  # type: ignore[assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(root, torch.ones(1, 16), check_trace=False).save(str(file))


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
def test_openais_archive_is_taken_and_says_its_activation(
    model: clip.Clip, home: Path, tmp_path: Path, half: bool
) -> None:
    openai_archive(model, tmp_path / "ViT.pt", half)
    assert_same(clip.load(str(home / "plain"), str(tmp_path / "ViT.pt")), model, 2e-3 if half else 0)
    assert clip.trained_with("ViT-B-32", str(tmp_path / "ViT.pt")) == "quick_gelu"
    gelu = written(tmp_path / "gelu", {**ARCH, "quick_gelu": False})
    with pytest.raises(UserError, match="trained with activation 'quick_gelu' and would be used with 'gelu'"):
        clip.load(gelu, str(tmp_path / "ViT.pt"))


def test_an_archive_runs_no_code(home: Path, tmp_path: Path) -> None:
    """TorchScript can write files while torch.jit.load reads it."""
    code = f"""
import torch
class Evil(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.logit_scale = torch.nn.Parameter(torch.ones(1))
    @torch.jit.export
    def __getstate__(self):
        return (self.logit_scale, self.training)
    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        torch.save(torch.ones(1), {str(tmp_path / "ran")!r})
        self.logit_scale = state[0]
        self.training = state[1]
    def forward(self, x):
        return x
torch.jit.script(Evil()).save({str(tmp_path / "evil.pt")!r})
"""
    (tmp_path / "evil.py").write_text(code)
    subprocess.run([sys.executable, "-W", "ignore", tmp_path / "evil.py"], check=True, capture_output=True)
    (tmp_path / "ran").unlink(missing_ok=True)
    with pytest.raises(UserError, match="cannot load"):
        clip.load(str(home / "plain"), str(tmp_path / "evil.pt"))
    assert not (tmp_path / "ran").exists()
    torch.jit.load(tmp_path / "evil.pt")
    assert (tmp_path / "ran").exists(), "the archive does what the test is about"


class Whole(torch.nn.Module):
    """Somebody's own model."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)


class Settings:
    """Somebody's own class."""


def test_a_whole_pickled_model_is_named_with_the_command_that_converts_it(
    model: clip.Clip, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(model.model, "whole.pt")
    with pytest.raises(UserError, match="it is a whole pickled model, with classes of open_clip") as error:
        clip.load(str(home / "plain"), "whole.pt")
    command = str(error.value).partition('python -c "')[2].removesuffix('"')
    subprocess.run([sys.executable, "-c", command], check=True)
    assert_same(clip.load(str(home / "plain"), "whole.weights.pt"), model)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_own_classes_beside_the_weights_are_named(model: clip.Clip, home: Path, tmp_path: Path, zipped: bool) -> None:
    file = tmp_path / "w.pt"
    torch.save({"state_dict": state_of(model), "settings": Settings()}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"beside weights it holds objects of .*test_weights\.Settings"):
        clip.load(str(home / "plain"), str(file))


def test_what_is_wrong_with_a_local_file_is_said_offline(
    model: clip.Clip, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without a network is where local files are used."""
    monkeypatch.setattr("pipeline.clip.names.hub_answers", lambda: False)
    state, file = state_of(model), tmp_path / "w.pt"

    def refusal(name: str = "w.pt", model: str = str(home / "plain")) -> str:
        with pytest.raises(UserError) as error:
            clip.load(model, str(tmp_path / name))
        assert "hub" not in str(error.value)
        return str(error.value)

    for kind in ("safetensors", "pt"):
        whole = tmp_path / f"whole.{kind}"
        save_file(state, whole) if kind == "safetensors" else torch.save(state, whole)
        (tmp_path / f"cut.{kind}").write_bytes(whole.read_bytes()[:-5000])
        assert "it is cut short" in refusal(f"cut.{kind}")
    file.write_bytes(bytes(range(256)) * 20)
    assert "it is damaged, or no weights file" in refusal()
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    assert "Git LFS" in refusal() and "git lfs pull" in refusal()
    torch.save({name: tensor for name, tensor in state.items() if "resblocks.1" not in name}, file)
    assert "Missing key(s)" in refusal() and "resblocks.1" in refusal()
    torch.save(state | {"logit_bias_of_another": torch.ones(1)}, file)
    assert "Unexpected key(s)" in refusal() and "logit_bias_of_another" in refusal()
    torch.save({"epoch": 3, "optimizer": {}}, file)
    assert "it holds no weights, only epoch, optimizer" in refusal()
    torch.save([1, 2], file)
    assert "it holds a list" in refusal()
    torch.save(state, file)
    wider = written(tmp_path / "wider", {**ARCH, "embed_dim": 32})
    assert "size mismatch for" in refusal(model=wider)


def test_weights_of_another_architecture_say_which(tmp_path: Path) -> None:
    """Shapes as ViT-S-32-alt has them; the values take no room."""
    shapes = {
        "visual.conv1.weight": (384, 3, 32, 32), "visual.positional_embedding": (50, 384),
        "text_projection": (256, 256), "positional_embedding": (77, 256), "token_embedding.weight": (49408, 256),
        "ln_final.weight": (256,),
        **{f"visual.transformer.resblocks.{number}.ln_1.bias": (384,) for number in range(12)},
        **{f"transformer.resblocks.{number}.ln_1.bias": (256,) for number in range(10)},
    }  # fmt: skip
    state = {f"module.{name}": torch.zeros(()).expand(shape) for name, shape in {**shapes, "logit_scale": ()}.items()}
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    told = r"cannot load 'ViT-S-16-alt' .* fix: set model to ViT-S-32-alt$"
    with pytest.raises(UserError, match=told):
        clip.load("ViT-S-16-alt", str(tmp_path / "w.pt"))
    with pytest.raises(UserError, match="they have patch_size 32 for 16; .*; fix: set model to ViT-S-32-alt$"):
        clip.check_model("ViT-S-16-alt", str(tmp_path / "w.pt"))
    clip.check_model("ViT-S-32-alt", str(tmp_path / "w.pt"))


def test_no_weights_are_said_to_be_none_before_anything_is_asked_of_their_activation(
    model: clip.Clip, tmp_path: Path
) -> None:
    """ViT-B-32 may be of either activation, and a bare file does not say which."""
    whole, cut, text = (tmp_path / name for name in ("whole.pt", "cut.pt", "notes.txt"))
    torch.save(state_of(model), whole)
    cut.write_bytes(whole.read_bytes()[:-5000])
    text.write_text("epoch 3: loss 0.1\n" * 9)
    for look in (clip.check_model, clip.load):
        with pytest.raises(UserError, match="it is cut short"):
            look("ViT-B-32", str(cut))
        with pytest.raises(UserError, match="it is damaged, or no weights file"):
            look("ViT-B-32", str(text))
        with pytest.raises(UserError, match="they have embed_dim 16 for 512, layers 2 for 12"):
            look("ViT-B-32", str(whole))


# -- Hugging Face's folder ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["quick_gelu", "gelu"])
def hugging(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A real CLIPModel with random weights, as transformers saves it."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    both = {"hidden_act": request.param, "num_hidden_layers": 2, "projection_dim": 16}
    config = transformers.CLIPConfig(
        projection_dim=16,
        text_config=both | {"hidden_size": 16, "intermediate_size": 48, "num_attention_heads": 2},
        vision_config=both | {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
        | {"image_size": 32, "patch_size": 8},
    )  # fmt: skip
    transformers.CLIPModel(config).save_pretrained(tmp_path / "hugging")
    mean, size = [0.5, 0.4, 0.3], {"shortest_edge": 32}
    transformers.CLIPImageProcessorPil(size=size, crop_size=32, image_mean=mean, resample=2).save_pretrained(
        tmp_path / "hugging"
    )
    return tmp_path / "hugging"


def test_a_clip_model_folder_embeds_as_transformers_does(hugging: Path) -> None:
    from transformers import CLIPModel

    ours, theirs = clip.load(str(hugging)), CLIPModel.from_pretrained(hugging).eval()
    assert (
        ours.description["activation"] == json.loads((hugging / "config.json").read_text())["text_config"]["hidden_act"]
    )
    assert ours.description["preprocess"]["mean"] == [0.5, 0.4, 0.3]
    assert ours.description["preprocess"]["interpolation"] == "bilinear"
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    tokens = clip.pad(ours.tokenize(TEXTS))
    with torch.no_grad():
        found = theirs(pixel_values=images, input_ids=tokens)
        torch.testing.assert_close(clip.encode_image(ours.model, images), found.image_embeds, atol=1e-6, rtol=0)
        torch.testing.assert_close(clip.encode_text(ours.model, tokens), found.text_embeds, atol=1e-6, rtol=0)
    assert clip.tokenizer_digest(str(hugging)) == clip.tokenizer_digest("ViT-B-32")
    assert not clip.is_random(str(hugging), None)


def test_a_trainers_folder_gives_its_weights_and_not_its_optimizer(hugging: Path) -> None:
    from safetensors.torch import load_file

    before = clip.load(str(hugging))
    torch.save(load_file(hugging / "model.safetensors"), hugging / "pytorch_model.bin")
    (hugging / "model.safetensors").unlink()
    for name in ("optimizer.pt", "scheduler.pt", "training_args.bin"):
        torch.save({"state": {}}, hugging / name)
    assert_same(clip.load(str(hugging)), before)


def test_the_weights_of_a_clip_model_say_their_activation(hugging: Path, home: Path) -> None:
    quick = "quick_gelu" in (hugging / "config.json").read_text()
    file = str(hugging / "model.safetensors")
    assert clip.trained_with("ViT-B-32", file) == ("quick_gelu" if quick else "gelu")
    if not quick:
        with pytest.raises(UserError, match="trained with activation 'gelu' and would be used with 'quick_gelu'"):
            clip.load(str(home / "plain"), file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "siglip"}, "holds a Hugging Face model of type 'siglip'"),
        ({"text_config": {"vocab_size": 21128}}, "another tokenizer"),
        ({"text_config": {"layer_norm_eps": 1e-6}}, "layer_norm_eps"),
        ({"vision_config": {"hidden_act": "gelu"}}, "activations of its towers"),
        ({"vision_config": {"num_attention_heads": 0}}, "holds no CLIPModel"),
        ({"vision_config": 5}, "holds no CLIPModel"),
    ],
)
def test_what_open_clip_has_no_place_for_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", **change}))
    with pytest.raises(UserError, match=message):
        clip.load(str(tmp_path))


def test_a_folder_or_file_that_is_no_model_says_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds neither open_clip_config\.json nor config\.json"):
        clip.load(str(tmp_path))
    torch.save({}, tmp_path / "ViT-B-32.pt")
    with pytest.raises(UserError, match=r"a file; .*fix: set model to its architecture and pretrained to the file"):
        clip.load(str(tmp_path / "ViT-B-32.pt"))
