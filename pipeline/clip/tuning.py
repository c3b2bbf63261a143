"""What is done to a CLIP beside its training: towers locked, LoRA put in and taken out, weights compared and mixed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipeline.artifact import Artifact
from pipeline.clip.encode import Clip
from pipeline.clip.models import load
from pipeline.errors import UserError, need_package

if TYPE_CHECKING:
    from torch import nn

LOGIT = ("logit_scale", "logit_bias")
"""Names of what makes logits of similarities, and belongs to no tower; the bias is SigLIP's."""

LORA_MODULES = ("attn", "c_fc", "c_proj")
"""Names of the layers of an open_clip transformer that LoRA adapts: attention (input and output) and MLP."""


def lock(model: "nn.Module", *, image: bool, text: bool, unlocked: int | Mapping[Any, int] = 0) -> None:
    """Keep whole towers as they are, all but their last `unlocked` groups of layers, or their first if it is negative.

    A number is of both towers, a mapping has one for "image" and "text", 0 where it has none.

    The groups are open_clip's: of a transformer the embeddings, each layer (the last with the norm behind it), and the
    projection. A text tower is what `encode_text` runs. Raises UserError if a tower has no such groups.
    """
    network: Any = model
    count = unlocked if isinstance(unlocked, Mapping) else {"image": unlocked, "text": unlocked}
    locks = []
    if image:
        locks.append(("image", network.visual, list(network.visual.parameters()), network.lock_image_tower))
    if text:
        locks.append(("text", getattr(network, "text", network), _of_text(network), network.lock_text_tower))
    try:
        for name, tower, parameters, lock_all_but_last in locks:
            learning = count.get(name, 0)
            if learning > 0:
                lock_all_but_last(learning)
                continue
            # open_clip's own locks leave the projection of a tower of timm or Hugging Face learning.
            for parameter in parameters:
                parameter.requires_grad_(False)
            if learning < 0:
                groups = len(tower.transformer.resblocks) + 2
                lock_all_but_last(max(groups + learning, 0))
                for parameter in parameters:
                    parameter.requires_grad_(not parameter.requires_grad)
    except (AttributeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            "train", f"this model's tower cannot be locked: {error}", "a tower of open_clip's own", "leave the lock out"
        ) from error


def _of_text(network: Any) -> "list[nn.Parameter]":
    """Parameters of the text tower, which of a CLIP may be no module of its own."""
    if hasattr(network, "text"):
        return list(network.text.parameters())
    named = network.named_parameters()
    return [parameter for name, parameter in named if not name.startswith("visual.") and name not in LOGIT]


def decayed(model: "nn.Module") -> "list[nn.Parameter]":
    """The parameters that learn and that open_clip's trainer decays: of two dimensions or more, and no bias table."""
    spared = ("bn", "ln", "bias", "logit_scale")
    return [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.ndim >= 2 and not any(part in name for part in spared)
    ]


def speed_up(model: "nn.Module", *, checkpoint_gradients: bool, compiled: bool) -> None:
    """Trade time for memory by computing activations twice, or compile both towers, in place.

    A text tower of another kind than prefix_tree.py knows is left as it is: its texts are of another length each time.
    """
    from pipeline.clip import image_tower, prefix_tree

    network: Any = model
    if checkpoint_gradients:
        network.set_grad_checkpointing(True)
    if not compiled:
        return
    text: Any = getattr(network, "text", network)
    if hasattr(text, "token_embedding") and prefix_tree.fits(text.transformer):
        prefix_tree.compile_blocks(text.transformer)
    if image_tower.fits(network.visual):
        prefix_tree.compile_blocks(network.visual.transformer)
    else:
        network.visual.compile()


def add_lora(model: "nn.Module", rank: int, alpha: float, seed: int) -> None:
    """Freeze the model and put LoRA (Hu et al. 2021) of that rank beside attention and MLP, in place.

    Logit scale and bias still learn. Raises UserError when peft is not installed or the model has no such layers.
    """
    need_package("train", "peft", "lora")
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            settings: dict[str, Any] = {"r": rank, "lora_alpha": alpha, "target_modules": list(LORA_MODULES)}
            inject_adapter_in_model(LoraConfig(**settings), model)
    except ValueError as error:
        raise UserError(
            "train", f"LoRA finds no layer: {error}", f"layers named {LORA_MODULES}", "--set train.lora_rank=0"
        ) from error
    for parameter in logit_parameters(model):
        parameter.requires_grad_(True)


def merge_lora(model: "nn.Module") -> None:
    """Put what LoRA learned into the plain weights, in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers: dict[str, Any] = {name: layer for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)}
    for name, layer in layers.items():
        if any(name.startswith(f"{other}.") for other in layers):
            continue  # part of an attention that is taken out as a whole
        if hasattr(layer, "unload_and_optionally_merge_module"):
            plain = layer.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
        else:
            layer.merge()
            plain = layer.get_base_layer()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, plain)


def logit_parameters(model: "nn.Module") -> "list[nn.Parameter]":
    """What makes logits of similarities: the scale, and the bias of a SigLIP."""
    named = dict(model.named_parameters(recurse=False))
    return [named[name] for name in LOGIT if name in named]


@contextmanager
def evaluating(model: "nn.Module") -> Iterator[None]:
    """The model in evaluation mode, and afterwards each module in the mode it was in."""
    learning = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in learning:
            module.training = True


def weight_delta(start: "nn.Module", tuned: "nn.Module") -> dict[str, float]:
    """How far each part moved: |tuned - start| / |start| over all its weights, by tower; 0 = not trained."""
    before, after = start.state_dict(), tuned.state_dict()
    sums: dict[str, list[float]] = {}
    for name, tensor in before.items():
        if tensor.is_floating_point() and name in after:
            part = "image" if name.startswith("visual.") else name if name in LOGIT else "text"
            was, now = tensor.double().cpu(), after[name].double().cpu()
            change, size = (now - was).square().sum().item(), was.square().sum().item()
            total = sums.setdefault(part, [0.0, 0.0])
            total[0], total[1] = total[0] + change, total[1] + size
    return {part: (change / size) ** 0.5 if size else 0.0 for part, (change, size) in sums.items()}


def interpolate(start: "nn.Module", tuned: "nn.Module", alpha: float) -> dict[str, Any]:
    """WiSE-FT (Wortsman et al. 2022): (1 - alpha) * start + alpha * tuned, as a state dict; 1 = tuned, 0 = start."""
    before, after = start.state_dict(), tuned.state_dict()
    if before.keys() != after.keys():
        raise UserError("export", "the two models differ in their layers", "one architecture", "leave alpha out")
    return {
        name: before[name].lerp(tensor, alpha) if tensor.is_floating_point() else tensor
        for name, tensor in after.items()
    }


def mixture(model: Artifact, alpha: float) -> Clip:
    """(1 - alpha) * start + alpha * trained of a `model` artifact, the model of WiSE-FT (arXiv 2109.01903)."""
    tuned = load(str(model.path / "student"))
    if alpha != 1:
        start = load(**model.meta["start"])
        tuned.model.load_state_dict(interpolate(start.model, tuned.model, alpha))
    return tuned
