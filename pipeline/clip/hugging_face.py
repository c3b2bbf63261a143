"""Hugging Face's `CLIPModel`: its settings and the names of its weights, from and to open_clip's.

A folder of it holds `config.json` (model_type clip), `model.safetensors` or `pytorch_model.bin`, and often
`preprocessor_config.json`. Read and written without the library transformers.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
IMAGES = "preprocessor_config.json"
BYTE_PAIRS = 49408
"""Tokens of CLIP's own tokenizer, the only one that open_clip gives such a model."""

# What CLIPTextConfig and CLIPVisionConfig mean where a file says nothing.
_TEXT = {
    "vocab_size": BYTE_PAIRS, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8,
    "num_hidden_layers": 12, "max_position_embeddings": 77,
}  # fmt: skip
_VISION = {
    "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12,
    "image_size": 224, "patch_size": 32,
}  # fmt: skip
_EPSILON = 1e-5
_WHOLE = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
_IN_A_BLOCK = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}  # fmt: skip


def is_clip(folder: Path) -> bool:
    """Whether a folder's `config.json` is that of a `CLIPModel`."""
    return model_type(folder) == "clip"


def model_type(folder: Path) -> str | None:
    """What `config.json` of a folder calls its model; None where there is none that can be read."""
    try:
        return str(json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def open_clip_config(folder: Path) -> dict[str, Any]:
    """`open_clip_config.json` for a folder of a `CLIPModel`: `model_cfg` and `preprocess_cfg`.

    Raises UserError where open_clip has no place for a setting.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        text, vision = _tower(config, "text", _TEXT), _tower(config, "vision", _VISION)
        for what, value, expected in (
            ("the activations of its towers", vision["hidden_act"], text["hidden_act"]),
            ("hidden_act", text["hidden_act"] in ("gelu", "quick_gelu"), True),
            ("layer_norm_eps", {text["layer_norm_eps"], vision["layer_norm_eps"]}, {_EPSILON}),
            ("vocab_size, another tokenizer", text["vocab_size"] >= BYTE_PAIRS, True),
        ):
            if value != expected:
                raise UserError("clip", f"{folder} is no model of open_clip's: {what}", "a CLIP", "use another model")
        arch: dict[str, Any] = {
            "embed_dim": int(config.get("projection_dim") or 512),
            "vision_cfg": {
                "image_size": int(vision["image_size"]),
                "layers": int(vision["num_hidden_layers"]),
                "width": int(vision["hidden_size"]),
                "head_width": int(vision["hidden_size"]) // int(vision["num_attention_heads"]),
                "mlp_ratio": vision["intermediate_size"] / vision["hidden_size"],
                "patch_size": int(vision["patch_size"]),
            },
            "text_cfg": {
                "context_length": int(text["max_position_embeddings"]),
                "vocab_size": int(text["vocab_size"]),
                "width": int(text["hidden_size"]),
                "heads": int(text["num_attention_heads"]),
                "layers": int(text["num_hidden_layers"]),
                "mlp_ratio": text["intermediate_size"] / text["hidden_size"],
            },
        }
        if text["hidden_act"] == "quick_gelu":
            arch["quick_gelu"] = True
        return {"model_cfg": arch, "preprocess_cfg": _preprocess(folder)}
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, AttributeError, RecursionError) as error:
        raise UserError(
            "clip", f"{folder} holds no CLIPModel: {error!r}", "config.json as transformers writes it", "mend it"
        ) from error


def _tower(config: dict[str, Any], name: str, otherwise: dict[str, int]) -> dict[str, Any]:
    """One tower's settings; `*_config_dict` is how transformers once wrote what differs, and it still counts."""
    given = (config.get(f"{name}_config") or {}) | (config.get(f"{name}_config_dict") or {})
    return {"hidden_act": "quick_gelu", "layer_norm_eps": _EPSILON} | otherwise | given


def _preprocess(folder: Path) -> dict[str, Any]:
    """What open_clip calls the preprocessing; OpenAI's where the folder says nothing."""
    if not (folder / IMAGES).is_file():
        return {}
    given = json.loads((folder / IMAGES).read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    if given.get("image_mean") and given.get("image_std"):
        found |= {"mean": list(given["image_mean"]), "std": list(given["image_std"])}
    if given.get("resample") is not None:
        found["interpolation"] = {2: "bilinear", 3: "bicubic"}[int(given["resample"])]
    size = given.get("size")
    found["resize_mode"] = "squash" if isinstance(size, dict) and "height" in size else "shortest"
    return found


def to_config(arch: dict[str, Any], activation: str, context_length: int) -> dict[str, Any]:
    """Keyword arguments of `CLIPConfig` for an architecture of open_clip's own ViT and text tower."""
    vision, text, width = arch["vision_cfg"], arch["text_cfg"], arch["embed_dim"]
    return {
        "projection_dim": width,
        "text_config": {
            "vocab_size": text["vocab_size"],
            "hidden_size": text["width"],
            "intermediate_size": int(text.get("mlp_ratio", 4.0) * text["width"]),
            "num_attention_heads": text["heads"],
            "num_hidden_layers": text["layers"],
            "max_position_embeddings": context_length,
            "hidden_act": activation,
            "bos_token_id": text["vocab_size"] - 2,
            "eos_token_id": text["vocab_size"] - 1,
            "pad_token_id": 0,
            "projection_dim": width,
        },
        "vision_config": {
            "hidden_size": vision["width"],
            "intermediate_size": int(vision.get("mlp_ratio", 4.0) * vision["width"]),
            "num_attention_heads": vision["width"] // vision.get("head_width", 64),
            "num_hidden_layers": vision["layers"],
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "hidden_act": activation,
            "projection_dim": width,
        },
    }


def to_names(weights: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """open_clip's weights by the names `CLIPModel` has for them."""
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name in _WHOLE:
            found[_WHOLE[name]] = tensor
        elif name in _TRANSPOSED:
            found[_TRANSPOSED[name]] = tensor.T
        elif "resblocks." in name:
            number, _, part = name.partition("resblocks.")[2].partition(".")
            layer = f"{'vision' if name.startswith('visual.') else 'text'}_model.encoder.layers.{number}"
            if part.startswith("attn.in_proj_"):
                for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                    found[f"{layer}.self_attn.{letter}_proj.{part.removeprefix('attn.in_proj_')}"] = third
            else:
                inner, _, kind = part.rpartition(".")
                found[f"{layer}.{_IN_A_BLOCK.get(inner, inner)}.{kind}"] = tensor
        elif name != "attn_mask":
            found[name] = tensor
    return {name: tensor.contiguous() for name, tensor in found.items()}


def has_names(weights: "dict[str, Tensor]") -> bool:
    """Whether weights have the names of a `CLIPModel`."""
    return _WHOLE["token_embedding.weight"] in weights


def from_names(weights: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """`to_names` the other way: what a `CLIPModel` saves, by open_clip's names; what it has no name for stays."""
    import torch

    whole, transposed, in_a_block = (
        {theirs: ours for ours, theirs in names.items()} for names in (_WHOLE, _TRANSPOSED, _IN_A_BLOCK)
    )
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        tower, _, inside = name.partition("_model.encoder.layers.")
        number, _, part = inside.partition(".")
        block = f"{'visual.' if tower == 'vision' else ''}transformer.resblocks.{number}"
        if name in whole:
            found[whole[name]] = tensor
        elif name in transposed:
            found[transposed[name]] = tensor.T
        elif part.startswith("self_attn.q_proj."):
            three = [weights[name.replace(".q_proj.", f".{letter}_proj.")] for letter in "qkv"]
            found[f"{block}.attn.in_proj_{part.removeprefix('self_attn.q_proj.')}"] = torch.cat(three)
        elif part and not part.startswith(("self_attn.k_proj.", "self_attn.v_proj.")):
            inner, _, kind = part.rpartition(".")
            found[f"{block}.{in_a_block.get(inner, inner)}.{kind}"] = tensor
        elif not part and not name.endswith("position_ids"):
            found[name] = tensor
    return {name: tensor.contiguous() for name, tensor in found.items()}
