"""What a model name means to open_clip: its architecture, weights file, and the activation they were trained with."""

import json
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from pipeline.assets import ROOT
from pipeline.clip import hugging_face
from pipeline.clip import weights as weights_files
from pipeline.errors import UserError

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
CARD = "degla.json"
FOLDER = "folder"
"""The `pretrained` of a local folder that must bring its own weights."""
HUB = "hf-hub:"
_USUAL = (WEIGHTS, "open_clip_pytorch_model.bin", "model.safetensors", "pytorch_model.bin")
"""What the weights of a folder are called; a trainer's folder holds others beside them."""


@cache
def package_folder() -> Path:
    """Folder of the installed open_clip, found without importing it."""
    spec = find_spec("open_clip")
    assert spec and spec.origin
    return Path(spec.origin).parent


def local_folder(model: str) -> Path | None:
    """The local folder that `model` names, if it names one: open_clip's, or one of Hugging Face's `CLIPModel`."""
    for candidate in (Path(model).expanduser(), ROOT / model):
        if (candidate / CONFIG).is_file() or hugging_face.is_clip(candidate):
            return candidate
    return None


def architecture(model: str) -> dict[str, Any]:
    """open_clip's `model_cfg` of a model, a fresh copy; no import of open_clip except for hub names."""
    if folder := local_folder(model):
        return dict(_folder_config(folder, model)["model_cfg"])
    if model.startswith(HUB):
        with import_open_clip() as open_clip:
            try:
                return _without_code(model, open_clip.get_model_config(model))
            except UserError:
                raise
            except Exception as error:
                raise load_error(model, None, error) from error
    builtin = package_folder() / "model_configs" / f"{model.replace('/', '-')}.json"
    if Path(model).is_absolute() or not builtin.is_file():
        raise _no_model(model)
    return dict(json.loads(builtin.read_text()))


def has_patches(model: str) -> bool:
    """Whether dense.py gives a model's patches and tokens.

    It does of open_clip's own vision transformer or ResNet with its usual pooling, beside a causal text tower of
    open_clip's own that is pooled at the end of the text.
    """
    arch = architecture(model)
    vision, text = arch.get("vision_cfg", {}), arch.get("text_cfg", {})
    return not (
        vision.get("timm_model_name")
        or vision.get("attentional_pool")
        or vision.get("pool_type", "tok") != "tok"
        or text.get("hf_model_name")
        or text.get("no_causal_mask")
        or text.get("embed_cls")
        or text.get("pool_type", "argmax") not in ("argmax", "eos")
    )


def preprocessing(model: str) -> dict[str, Any] | None:
    """open_clip's `preprocess_cfg` of a local folder; None where none is given, and of models whose name says it."""
    folder = local_folder(model)
    return _folder_config(folder, model).get("preprocess_cfg") if folder else None


def _folder_config(folder: Path, model: str) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        return hugging_face.open_clip_config(folder)
    try:
        found = json.loads((folder / CONFIG).read_text())
        return {**found, "model_cfg": _without_code(model, found["model_cfg"])}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            "clip", f"{folder / CONFIG} holds no model: {error!r}", "open_clip's format", "mend it"
        ) from error


def _no_model(model: str) -> UserError:
    path = Path(model).expanduser()
    what, fix = f"there is no model {model!r}", "set model to one of them"
    if path.is_file():
        what, fix = f"model is {model!r}, a file", "set model to its architecture and pretrained to the file"
    elif path.is_dir() and (kind := hugging_face.model_type(path)):
        what = f"{model} holds a Hugging Face model of type {kind!r}"
    elif path.is_dir():
        what = f"{model} holds neither {CONFIG} nor {hugging_face.CONFIG}"
    return UserError(
        "clip",
        what,
        f"an open_clip architecture such as ViT-B-32, {HUB}owner/name, or a folder with {CONFIG} or a CLIPModel",
        fix,
    )


def _without_code(model: str, arch: Any) -> dict[str, Any]:
    """The architecture. Raises UserError when it asks to run code that its tokenizer's repository brings."""
    if "trust_remote_code" in json.dumps(arch):
        raise UserError(
            "clip", f"{model} asks for trust_remote_code", "a model that brings no code", f"take it out of its {CONFIG}"
        )
    return dict(arch)


def weights_file(model: str, pretrained: str | None) -> Path | None:
    """The local file the weights come from; None for a tag, the hub, or random weights."""
    folder = local_folder(model)
    if pretrained and pretrained != FOLDER and Path(pretrained).expanduser().is_file():
        return Path(pretrained).expanduser()
    if folder:
        inside = [path for pattern in ("*.safetensors", "*.bin", "*.pt", "*.pth") for path in folder.glob(pattern)]
        chosen = min(inside, key=_preference, default=None)
        if pretrained and (pretrained != FOLDER or not chosen):
            raise UserError(
                "clip",
                f"pretrained is {pretrained!r} but {folder} {'is a local folder' if chosen else 'holds no weights'}",
                f"a weights file, or {WEIGHTS} in the folder",
                "set pretrained to a weights file, or leave it out",
            )
        return chosen
    if pretrained and (pretrained == FOLDER or "/" in pretrained or Path(pretrained).suffix):
        raise UserError(
            "clip",
            f"pretrained is {pretrained!r}, which is no file",
            "a weights file, a tag of open_clip, or nothing",
            "set pretrained to an existing file or a tag",
        )
    return None


def _preference(path: Path) -> tuple[int, bool, str]:
    usual = _USUAL.index(path.name) if path.name in _USUAL else len(_USUAL)
    return usual, path.suffix != ".safetensors", path.name


def is_random(model: str, pretrained: str | None) -> bool:
    """Whether `load` gives random weights: neither a tag, nor the hub, nor a file. Raises UserError as `load`."""
    return not (pretrained or model.startswith(HUB) or weights_file(model, pretrained))


@contextmanager
def open_clip_name(model: str) -> Iterator[str]:
    """The name by which open_clip loads the model, as long as the block is open."""
    folder = local_folder(model)
    if folder is None:
        yield model
    elif (folder / CONFIG).is_file():
        yield f"local-dir:{folder}"
    else:
        with TemporaryDirectory(prefix="degla-model-") as translated:
            (Path(translated) / CONFIG).write_text(json.dumps(hugging_face.open_clip_config(folder)))
            yield f"local-dir:{translated}"


def activation_of(arch: dict[str, Any]) -> str:
    """Activation of an architecture, gelu or quick_gelu."""
    return "quick_gelu" if arch.get("quick_gelu") else "gelu"


def tag_uses_quick_gelu(model: str, arch: dict[str, Any], tag: str) -> bool:
    """Whether the weights of an open_clip tag were trained with QuickGELU. Raises UserError when they cannot fit."""
    import open_clip

    name = model.replace("/", "-")
    if not open_clip.pretrained.is_pretrained_cfg(name, tag):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise UserError("clip", f"{model} has no weights {tag!r}", f"one of: {tags}", "set pretrained to one of them")
    quick = bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False))
    if arch.get("quick_gelu") and not quick:
        raise UserError(
            "clip",
            f"{model} computes QuickGELU but the weights {tag!r} were trained with GELU",
            "the activation the weights were trained with",
            f"set model to {model.removesuffix('-quickgelu')}",
        )
    return quick


def trained_with(model: str, pretrained: str | None = None) -> str | None:
    """The activation a model's weights were trained with, gelu or quick_gelu; None where nothing says it.

    Nothing does for a weights file that does not say it (`said_by`) under an architecture that open_clip has in both
    kinds.
    """
    arch, weights = architecture(model), weights_file(model, pretrained)
    if weights is None and pretrained and not model.startswith(HUB):
        with import_open_clip():
            return "quick_gelu" if tag_uses_quick_gelu(model, arch, pretrained) else "gelu"
    if weights and (said := said_by(weights)):
        return said
    both = package_folder() / "model_configs" / f"{model.replace('/', '-')}-quickgelu.json"
    return None if weights and not local_folder(model) and both.is_file() else activation_of(arch)


def said_by(weights: Path) -> str | None:
    """The activation that a weights file says it was trained with, itself or by what stands beside it."""
    if (weights.parent / CARD).is_file():
        return model_card(weights).get("activation")
    if weights_files.computes_quick_gelu(weights):
        return "quick_gelu"
    if hugging_face.is_clip(weights.parent):
        return activation_of(hugging_face.open_clip_config(weights.parent)["model_cfg"])
    return None


def model_card(weights: Path) -> dict[str, Any]:
    """`degla.json` beside a weights file. Raises UserError when it is no JSON."""
    card = weights.parent / CARD
    try:
        return dict(json.loads(card.read_text()))
    except ValueError as error:
        raise UserError("clip", f"{card} is no JSON: {error}", "the file degla wrote", "restore it") from error


def load_error(model: str, pretrained: str | None, error: Exception, lacks: str = "") -> UserError:
    """What a user is told when open_clip cannot load a model, or what it `lacks` of one."""
    what = f"cannot load {lacks or repr(model)}" + (f" with weights {pretrained!r}" if pretrained else "")
    weights = weights_file(model, pretrained)
    local = local_folder(model) or weights
    if not local and not hub_answers():
        return UserError(
            "clip",
            f"{what}: it is not on this machine, and the model hub cannot be reached from here",
            "a model this machine has or can download",
            "set model to a local folder and pretrained to a local weights file, or connect to the hub",
        )
    reason = " ".join(str(error).split())
    if "Cannot access gated repo" in reason:
        from huggingface_hub import constants

        page = f"{constants.ENDPOINT}/{model.removeprefix(HUB)}" if model.startswith(HUB) else constants.ENDPOINT
        return UserError(
            "clip",
            f"{model} is gated: its owner has not given you access",
            "a model you may download",
            f"ask for access on {page}, then `hf auth login` or set HF_TOKEN",
        )
    return UserError(
        "clip",
        f"{what}: {type(error).__name__} {reason}"[:400],
        "weights of this architecture" if local else "a model this machine has or can download",
        f"set model to {' or '.join(_fitting(weights)) or 'the architecture of the weights'}"
        if weights
        else "set model or pretrained to another",
    )


def check_shape(model: str, pretrained: str | None) -> None:
    """Raise UserError for a weights file whose tensors show that they are of another architecture.

    Only what open_clip cannot adapt counts, and only of weights in CLIP's own layout (`weights.shape`).
    """
    weights, arch = weights_file(model, pretrained), architecture(model)
    if not weights or arch.get("custom_text"):
        return
    shape = weights_files.shape(weights)
    wrong = [
        f"{name} {part[name]} for {of[name]}"
        for part, of in ((shape, arch), *((shape.get(tower, {}), arch[tower]) for tower in ("vision_cfg", "text_cfg")))
        for name in ("embed_dim", "layers", "width", "patch_size", "vocab_size")
        if name in part and name in of and part[name] != of[name]
    ]
    if wrong:
        raise UserError(
            "clip",
            f"cannot load {model!r} with weights {str(weights)!r}: they have {', '.join(wrong)}",
            "weights of this architecture",
            f"set model to {' or '.join(_fitting(weights)) or 'the architecture of the weights'}",
        )


def _fitting(weights: Path) -> list[str]:
    """open_clip's architectures that have the shape of some weights."""
    shape = weights_files.shape(weights)
    found = []
    for path in sorted((package_folder() / "model_configs").glob("*.json")) if shape else ():
        arch = json.loads(path.read_text())
        has = {"embed_dim": arch["embed_dim"], **{part: arch[part] for part in ("vision_cfg", "text_cfg")}}
        if not arch.get("custom_text") and _agrees(shape, has):
            found.append(path.stem)
    return found


def _agrees(shape: dict[str, Any], has: dict[str, Any]) -> bool:
    """Whether all that a shape says stands in an architecture."""
    return all(
        _agrees(value, has.get(key, {})) if isinstance(value, dict) else has.get(key) == value
        for key, value in shape.items()
    )


@cache
def hub_answers() -> bool:
    """Whether the model hub answers: one short connection, because its client retries for most of a minute."""
    from urllib.request import getproxies  # a whole HTTP client

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if getproxies():
        return True
    try:
        host = urlsplit(constants.ENDPOINT)
        socket.create_connection((host.hostname or "", host.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


@contextmanager
def import_open_clip() -> Iterator[Any]:
    """open_clip, without its log lines (it warns of random weights that were asked for, and logs what we raise).

    Inside the block the hub's client does not try to reach a hub that does not answer.
    """
    import huggingface_hub.constants as hub
    import open_clip

    root, quiet, offline = logging.getLogger(), logging.NullHandler(), hub.HF_HUB_OFFLINE
    root.addHandler(quiet)
    root.addFilter(_nothing)  # open_clip logs on the root logger; what other loggers say passes
    hub.HF_HUB_OFFLINE = not hub_answers()
    try:
        yield open_clip
    finally:
        hub.HF_HUB_OFFLINE = offline
        root.removeFilter(_nothing)
        root.removeHandler(quiet)


def _nothing(record: logging.LogRecord) -> bool:
    return False
