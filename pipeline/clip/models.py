"""Loading and saving CLIP models.

A model is named by an open_clip architecture (with `pretrained` a tag, a weights file, or nothing for random weights),
by `hf-hub:owner/name`, or by a local folder with `open_clip_config.json` or of Hugging Face's `CLIPModel`. Weights
files are taken as others write them (weights.py). A folder degla saves holds

    open_clip_config.json          architecture and preprocessing; open_clip alone loads the folder
    open_clip_model.safetensors    weights, fp32
    degla.json                     activation, preprocessing, tokenizer and architecture the weights were trained with

Shapes: B images or texts, L tokens, C channels, H and W pixels, D embedding width, N all items of a call.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifact import digest, path_digest
from pipeline.clip.encode import Clip
from pipeline.clip.names import (
    CARD,
    CONFIG,
    HUB,
    WEIGHTS,
    activation_of,
    architecture,
    check_shape,
    import_open_clip,
    load_error,
    local_folder,
    model_card,
    open_clip_name,
    preprocessing,
    trained_with,
    weights_file,
)
from pipeline.clip.tokens import tokenizer, tokenizer_digest
from pipeline.clip.weights import check as check_weights
from pipeline.clip.weights import readable
from pipeline.errors import UserError

if TYPE_CHECKING:
    from torch import nn


def imagenet_prompts() -> tuple[list[str], list[str]]:
    """OpenAI's names of ImageNet's 1,000 classes, in the order of their WordNet ids, and its 80 templates with `{}`."""
    from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

    return list(IMAGENET_CLASSNAMES), [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]


# -- loading and saving ------------------------------------------------------------------------------------------------


def load(
    model: str, pretrained: str | None = None, *, seed: int = 0, device: str = "cpu", activation: str | None = None
) -> Clip:
    """Build a model and its weights.

    Args:
        model: an open_clip architecture ("ViT-B-32"), "hf-hub:owner/name", or a local folder, open_clip's or of
            Hugging Face's `CLIPModel`; a relative one is looked for here, then beside degla's own `data/`.
        pretrained: for an architecture: an open_clip tag ("openai") or a weights file. For a folder: None takes the
            weights it holds, if any; "folder" insists on them; or a weights file. Without weights: random.
        seed: of the random weights.
        device: torch device.
        activation: gelu or quick_gelu; must be said of a weights file that does not say it, under an architecture
            whose weights may have been trained with either. Such a file is OpenAI's CLIP, or NegCLIP's.

    Weights known to be trained with QuickGELU are given it even under an architecture name that lacks it.

    Raises:
        UserError: unknown model or tag, weights that cannot be had (at once when the machine is offline), are no
            weights or do not fit, an activation other than the one the weights were trained with, or not known.
    """
    import torch

    folder, arch = local_folder(model), architecture(model)
    weights = weights_file(model, pretrained)
    trained = _trained(model, pretrained, activation)
    computed = activation_of(arch)
    if trained and trained != computed and (folder or computed == "quick_gelu"):
        raise _mismatch(weights or Path(model), "activation", trained, computed)
    with import_open_clip() as open_clip, open_clip_name(model) as name, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        settings: dict[str, Any] = {"pretrained_text": False, "device": "cpu"}
        if not folder and not model.startswith(HUB):
            settings["force_quick_gelu"] = (trained or activation) == "quick_gelu"
            if pretrained and weights is None:
                settings["pretrained"] = pretrained
        if folder:
            settings["load_weights"] = False
        try:
            if model.startswith(HUB):
                _download_weights(model.removeprefix(HUB))
            network = open_clip.create_model(name, **settings)
            if weights:
                with readable(weights) as file:
                    open_clip.load_checkpoint(network, str(file))
        except UserError:
            raise
        except Exception as error:
            raise load_error(model, pretrained, error) from error
        preprocess = open_clip.transform.image_transform_v2(
            open_clip.transform.PreprocessCfg(**network.visual.preprocess_cfg), is_train=False
        )
    arch["quick_gelu"] = bool(arch.get("quick_gelu") or settings.get("force_quick_gelu"))
    description = {
        "arch": arch,
        "activation": activation_of(arch),
        "preprocess": json.loads(json.dumps(network.visual.preprocess_cfg)),
        "tokenizer": tokenizer_digest(model),
        "context_length": int(network.context_length),
    }
    if weights:
        _refuse_mismatch(weights, description)
    # The layout convolutions are fastest in, on CPU and GPU alike; transformers do not mind.
    network = network.to(device, memory_format=torch.channels_last).eval()
    return Clip(network, preprocess, tokenizer(model), description)


def check_model(model: str, pretrained: str | None = None, *, activation: str | None = None) -> None:
    """Raise UserError, as `load` would, for what shows without building the model.

    No such architecture, tag or file; a file that is damaged, holds no weights or those of another architecture; an
    activation that is not known, or is not the one the weights were trained with.
    """
    if weights := weights_file(model, pretrained):
        check_weights(weights)
        check_shape(model, pretrained)
    _trained(model, pretrained, activation)


def outline(model: str) -> "nn.Module":
    """A model's network on torch's meta device: shapes without values, which take neither memory nor time.

    Statistics of BatchNorm have values, which are none of the model's. Raises UserError for an unknown model.
    """
    import torch

    architecture(model)
    with import_open_clip() as open_clip, open_clip_name(model) as name, torch.device("meta"):
        try:
            network: nn.Module = open_clip.create_model(name, load_weights=False, pretrained_text=False, device="meta")
        except Exception as error:
            raise load_error(model, None, error) from error
    for module in network.modules():
        mean = getattr(module, "running_mean", None)
        if isinstance(mean, torch.Tensor):
            module.running_mean = torch.ones(mean.shape)
    return network


def _trained(model: str, pretrained: str | None, activation: str | None) -> str | None:
    """The activation that weights are known to be trained with.

    Raises UserError where it must be known and is not, and where another is asked for.
    """
    weights = weights_file(model, pretrained)
    trained = trained_with(model, pretrained)
    if trained is None and activation is None:
        assert weights
        check_weights(weights)  # what is none of its weights has no activation either
        check_shape(model, pretrained)
        raise UserError(
            "clip",
            f"{weights} does not say whether it was trained with GELU or QuickGELU, and {model} may be either",
            f"{model}-quickgelu for descendants of OpenAI's weights, or weights in a folder with {CONFIG}",
            f"set model to {model}-quickgelu; or activation to gelu (degla eval --activation both tries both)",
        )
    if trained and activation not in (None, trained):
        raise UserError(
            "clip",
            f"{model} was trained with activation {trained!r} and would be used with {activation!r}",
            "the same activation",
            "leave the activation out; degla eval --activation both shows what it costs",
        )
    return trained


def _download_weights(repository: str) -> None:
    """Weights of the hub into its cache; where they cannot be had, open_clip would warn and take random ones."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        hf_hub_download(repository, WEIGHTS)
    except EntryNotFoundError:
        hf_hub_download(repository, "open_clip_pytorch_model.bin")


def save(clip: Clip, folder: Path) -> None:
    """Write an open_clip folder (see the top of this file); `load(str(folder))` gives the same bits back."""
    folder.mkdir(parents=True, exist_ok=True)
    description = clip.description
    keys = ("mean", "std", "interpolation", "resize_mode")
    preprocess = {key: description["preprocess"][key] for key in keys}
    save_weights(clip.model, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps({"model_cfg": description["arch"], "preprocess_cfg": preprocess}, indent=2))
    (folder / CARD).write_text(json.dumps(description, indent=2))


def save_weights(model: "nn.Module", path: Path) -> None:
    """Write the weights alone, as safetensors; what `load` takes as `pretrained` with the right `model`."""
    from safetensors import torch as safetensors

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    path.write_bytes(safetensors.save(tensors))  # save_file tells a full disk by an error of its own


def model_digest(model: str, pretrained: str | None = None) -> str:
    """Digest of a model for a fingerprint: local files by content, tags by name; does not import open_clip.

    Raises UserError when the architecture, the folder or the weights file does not exist.
    """
    arch, weights = architecture(model), weights_file(model, pretrained)
    parts = [arch, path_digest(weights) if weights else pretrained, model if ":" in model else None]
    return digest([*parts, preprocess] if (preprocess := preprocessing(model)) else parts)


def with_activation(clip: Clip, activation: str) -> Clip:
    """A copy of a model whose own blocks compute gelu or quick_gelu, whatever its weights were trained with.

    What a mismatch does, to be measured; towers of timm and Hugging Face have their own activation and keep it.
    """
    from copy import deepcopy

    import torch
    from open_clip.transformer import QuickGELU

    network = deepcopy(clip.model)
    for block in network.modules():
        if isinstance(getattr(block, "gelu", None), torch.nn.GELU | QuickGELU):
            block.gelu = QuickGELU() if activation == "quick_gelu" else torch.nn.GELU()
    arch = {**clip.description["arch"], "quick_gelu": activation == "quick_gelu"}
    return Clip(network, clip.preprocess, clip.tokenize, {**clip.description, "arch": arch, "activation": activation})


def _refuse_mismatch(weights: Path, description: dict[str, Any]) -> None:
    """Compare a model with what `degla.json` beside its weights says they were trained with."""
    if not (weights.parent / CARD).is_file():
        return
    trained = model_card(weights)
    for key in ("activation", "preprocess", "tokenizer"):
        if trained.get(key) != description[key]:
            raise _mismatch(weights, key, trained.get(key), description[key])


def _mismatch(weights: Path, what: str, trained: Any, used: Any) -> UserError:
    fix = f"set model to {weights.parent}" if local_folder(str(weights.parent)) else "set model to its architecture"
    return UserError(
        "clip",
        f"{weights} was trained with {what} {trained!r} and would be used with {used!r}",
        f"the same {what}",
        fix,
    )


def load_with_open_clip(folder: Path) -> "nn.Module":
    """What open_clip makes of a saved folder without any help of this module."""
    with import_open_clip() as open_clip:
        network: nn.Module = open_clip.create_model(f"local-dir:{folder.absolute()}").eval()
        return network
