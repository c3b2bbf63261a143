"""CLIP models: the only module that knows open_clip.

A model is named by an open_clip architecture (with `pretrained` a tag, a weights file, or nothing for random weights),
by `hf-hub:owner/name`, or by a local folder with `open_clip_config.json`. A folder degla saves holds

    open_clip_config.json          architecture and preprocessing; open_clip alone loads the folder
    open_clip_model.safetensors    weights, fp32
    degla.json                     activation, preprocessing, tokenizer and architecture the weights were trained with

Shapes: B pictures or texts, L tokens, C channels, H and W pixels, D embedding width, N all items of a call.
"""

import json
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from pipeline.artifact import digest, file_sha256, path_digest
from pipeline.assets import ROOT
from pipeline.errors import UserError
from pipeline.stage import Progress, silent

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor, nn

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
CARD = "degla.json"
FOLDER = "folder"
"""The `pretrained` of a local folder that must bring its own weights."""

PICTURES = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""Kinds of picture files that are opened, by content; of others Pillow hands some (EPS) to a program outside."""

Tokenize = Callable[[list[str]], list[list[int]]]


@dataclass(frozen=True)
class Clip:
    """A model with all that is needed to feed it.

    Attributes:
        model: open_clip's CLIP or CustomTextCLIP, fp32, in evaluation mode.
        preprocess: evaluation transform, PIL picture -> tensor CHW.
        tokenize: texts -> token ids, see `tokenizer`.
        description: arch, activation, preprocess (size, mean, std, interpolation, resize_mode), tokenizer,
            context_length; plain JSON data, written to `degla.json`.
    """

    model: "nn.Module"
    preprocess: Callable[["Image"], "Tensor"]
    tokenize: Tokenize
    description: dict[str, Any]


# -- tokens ------------------------------------------------------------------------------------------------------------


@cache
def tokenizer(model: str) -> Tokenize:
    """The model's own tokenizer without its padding: texts -> token ids with start and end, at their own length.

    Too long texts are cut at the context length and keep the end token, as open_clip cuts them. For a text tower that
    is not causal or not pooled at the end token the padding counts in the embedding, so there it stays.
    """
    text_cfg = _arch(model)["text_cfg"]
    with _open_clip() as open_clip:
        try:
            tokenize = open_clip.get_tokenizer(_schema_name(model))
        except Exception as error:
            raise _unloadable(model, None, error) from error
    context = int(text_cfg.get("context_length", 77))
    if not _cuttable(text_cfg):
        return lambda texts: tokenize(texts).tolist() if texts else []  # type: ignore[no-any-return]
    end: int = tokenize.eot_token_id
    encode_word = lru_cache(2**18)(tokenize.encode)

    def encode(text: str) -> list[int]:
        # Cleaning is most of the work and changes nothing in plain text, whose words then repeat.
        if not text.isascii() or not text.isprintable() or "&" in text:
            return list(tokenize.encode(text))
        words = tokenize.pat.findall(" ".join(text.lower().split()))
        return list(chain.from_iterable(encode_word(word) for word in words))

    def own_length(texts: list[str]) -> list[list[int]]:
        rows = ([tokenize.sot_token_id, *encode(text), end] for text in texts)
        return [row if len(row) <= context else [*row[: context - 1], end] for row in rows]

    return own_length


def tokenizer_digest(model: str) -> str:
    """Digest of everything that decides the token ids; does not import open_clip. Raises UserError as `load` does."""
    text_cfg = _arch(model)["text_cfg"]
    keys = ("context_length", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs", "pool_type", "no_causal_mask")
    settings = {key: text_cfg.get(key) for key in keys}
    if not text_cfg.get("hf_tokenizer_name"):
        source = file_sha256(_open_clip_folder() / "bpe_simple_vocab_16e6.txt.gz")
    elif folder := _folder(model):
        source = digest({path.name: file_sha256(path) for path in sorted(folder.glob("*token*"))})
    else:
        source = str(text_cfg["hf_tokenizer_name"])
    return digest([settings, source])


def pad(tokens: "Sequence[Sequence[int] | Tensor]", device: "str | torch.device" = "cpu") -> "Tensor":
    """Token lists -> `tokens_BL`, int64, zero-padded to the longest list of this call (at least one list)."""
    import torch

    rows = [torch.as_tensor(row, dtype=torch.int64) for row in tokens]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)


# -- embeddings --------------------------------------------------------------------------------------------------------


def encode_image(model: "nn.Module", image_BCHW: "Tensor") -> "Tensor":
    """Pictures -> `image_BD`, each row of L2 norm 1."""
    import torch

    return _unit(model.encode_image(image_BCHW.to(memory_format=torch.channels_last)))  # type: ignore[operator]


def encode_text(model: "nn.Module", tokens_BL: "Tensor") -> "Tensor":
    """Token ids, padded at the end to any common length up to the context length -> `text_BD`, each row of L2 norm 1.

    Exact for every L that holds the longest text: the tower is causal and pooled at the end token, so the positions
    behind it change nothing, and texts share what their common beginnings give (pipeline/prefix_tree.py). Towers of
    another kind need their full context length, which `tokenizer` gives them.
    """
    import torch
    from open_clip.transformer import text_global_pool

    from pipeline import prefix_tree

    tower: Any = getattr(model, "text", model)
    length = tokens_BL.shape[1]
    if not hasattr(tower, "token_embedding") or tower.attn_mask is None or getattr(tower, "cls_emb", None) is not None:
        return _unit(model.encode_text(tokens_BL))  # type: ignore[operator]
    dtype = tower.transformer.get_cast_dtype()
    pool = getattr(tower, "text_pool_type", None) or tower.pool_type
    end_id = getattr(tower, "text_eos_id", None) or getattr(tower, "eos_id", None)
    if prefix_tree.fits(tower.transformer):
        place_BL1 = torch.arange(length, device=tokens_BL.device).expand(len(tokens_BL), length)[..., None]
        end_B = text_global_pool(place_BL1, tokens_BL, pool, eos_token_id=end_id)[:, 0]
        tree = prefix_tree.grow(tokens_BL, end_B)
        placed_SW = tower.positional_embedding.index_select(0, tree.place_S)  # [] adds gradients up in any order
        x_SW = tower.token_embedding(tree.token_S).to(dtype) + placed_SW.to(dtype)
        x_BW = prefix_tree.run(tower.transformer, x_SW, tree)
    else:
        x_BLW = tower.token_embedding(tokens_BL).to(dtype) + tower.positional_embedding[:length].to(dtype)
        x_BLW = tower.transformer(x_BLW, attn_mask=tower.attn_mask[:length, :length])
        x_BW = text_global_pool(x_BLW, tokens_BL, pool, eos_token_id=end_id)
    x_BW = tower.ln_final(x_BW)
    if tower.text_projection is not None:
        projection = tower.text_projection
        x_BW = projection(x_BW) if callable(projection) else x_BW @ projection
    return _unit(x_BW)


def _unit(x_BD: "Tensor") -> "Tensor":
    """Rows of L2 norm 1, in fp32 (or better) whatever the encoder's precision."""
    import torch

    return torch.nn.functional.normalize(x_BD.to(torch.promote_types(x_BD.dtype, torch.float32)), dim=-1)


def embed_texts(
    clip: Clip, texts: Sequence[str], batch: int = 256, device: str = "cpu", progress: Progress = silent
) -> "Tensor":
    """Texts -> `text_ND`, fp32 on the CPU, L2 norm 1, in the order given.

    Texts that begin alike are encoded together, because they share that work; where a tower cannot share, texts of one
    length, so that padding stays small.
    """
    import torch

    from pipeline import prefix_tree

    tokens = clip.tokenize(list(texts))
    tower: Any = getattr(clip.model, "text", clip.model)
    shares = hasattr(tower, "token_embedding") and prefix_tree.fits(tower.transformer)
    order = sorted(range(len(tokens)), key=lambda index: tokens[index] if shares else [len(tokens[index])])
    found: list[Tensor] = []
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            rows = [tokens[index] for index in order[start : start + batch]]
            found.append(encode_text(clip.model, pad(rows, device)).float().cpu())
            progress("texts", start + len(rows), len(order))
    if not found:
        return torch.empty(0, 0)
    text_ND = torch.cat(found)
    return text_ND[torch.tensor(order).argsort()]


def embed_images(
    clip: Clip,
    images: Sequence["Path | Callable[[], Image]"],
    batch: int = 64,
    workers: int = 2,
    device: str = "cpu",
    progress: Progress = silent,
) -> "Tensor":
    """Picture files, or functions that give a picture -> `image_ND`, fp32 on the CPU, L2 norm 1, in the order given.

    Args:
        clip: the model, already on `device`.
        images: paths, or callables without arguments.
        batch: pictures per forward pass.
        workers: threads that decode the next batch while this one is encoded; at least one.
        device: where the model is.
        progress: called with "pictures" after each batch.

    Raises:
        UserError: a file is missing or cannot be decoded.
    """
    import torch

    def tensor(image: "Path | Callable[[], Image]") -> "Tensor":
        return clip.preprocess(read_picture(image) if isinstance(image, Path) else image())

    found: list[Tensor] = []
    with ThreadPoolExecutor(max(workers, 1)) as pool, torch.inference_mode():
        ahead = [pool.submit(tensor, image) for image in images[:batch]]
        for end in range(batch, len(images) + batch, batch):
            image_BCHW = torch.stack([future.result() for future in ahead])
            ahead = [pool.submit(tensor, image) for image in images[end : end + batch]]
            found.append(encode_image(clip.model, image_BCHW.to(device)).float().cpu())
            progress("pictures", min(end, len(images)), len(images))
    return torch.cat(found) if found else torch.empty(0, 0)


def read_picture(path: Path, size: int | None = None) -> "Image":
    """A picture file as RGB, turned upright by its EXIF tag.

    With `size`, a JPEG is decoded at the smallest of its built-in scales whose both sides stay >= `size` pixels,
    several times faster than decoding all of it. Raises UserError when the file is missing or broken.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=PICTURES) as picture:
            if size:
                picture.draft("RGB", (size, size))
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            "pictures", f"cannot read {path}: {error}", "a whole picture file", "repair it, or run ingest again"
        ) from error


def imagenet_prompts() -> tuple[list[str], list[str]]:
    """OpenAI's names of ImageNet's 1,000 classes, in the order of their WordNet ids, and its 80 templates with `{}`."""
    from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

    return list(IMAGENET_CLASSNAMES), [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]


def crop(clip: Clip) -> Callable[["Image"], "Tensor"]:
    """The first half of `clip.preprocess`: resize and crop -> uint8 CHW; `normalise` is the other half."""
    from torchvision.transforms import Compose
    from torchvision.transforms.functional import pil_to_tensor

    transforms: Any = clip.preprocess
    geometry: Any = Compose(transforms.transforms[:-2])  # the last two are ToTensor and Normalize
    return lambda picture: pil_to_tensor(geometry(picture))


def normalise(clip: Clip, image_BCHW: "Tensor") -> "Tensor":
    """uint8 pictures -> what the model reads, on their device; after `crop`, bit for bit what `preprocess` gives."""
    from torchvision.transforms.functional import normalize

    settings = clip.description["preprocess"]
    normalised: Tensor = normalize(image_BCHW.float().div(255), settings["mean"], settings["std"])
    return normalised


# -- loading and saving ------------------------------------------------------------------------------------------------


def load(
    model: str, pretrained: str | None = None, *, seed: int = 0, device: str = "cpu", activation: str | None = None
) -> Clip:
    """Build a model and its weights.

    Args:
        model: an open_clip architecture ("ViT-B-32"), "hf-hub:owner/name", or a local folder with
            `open_clip_config.json`; a relative folder is looked for here, then beside degla's own `data/`.
        pretrained: for an architecture: an open_clip tag ("openai") or a weights file. For a folder: None takes the
            weights it holds, if any; "folder" insists on them; or a weights file. Without weights: random.
        seed: of the random weights.
        device: torch device.
        activation: gelu or quick_gelu; must be said of a weights file that does not say it, under an architecture
            whose weights may have been trained with either. Such a file is OpenAI's CLIP, or NegCLIP's.

    An open_clip tag trained with QuickGELU is given QuickGELU even under an architecture name that lacks it.

    Raises:
        UserError: unknown model or tag, weights that cannot be had (at once when the machine is offline) or do not
            fit, an activation other than the one the weights were trained with, or not known.
    """
    import torch

    folder, arch = _folder(model), _arch(model)
    weights = _weights_file(model, pretrained)
    trained = trained_with(model, pretrained)
    if trained is None and activation is None:
        raise UserError(
            "clip",
            f"{weights} does not say whether it was trained with GELU or QuickGELU, and {model} may be either",
            f"{model}-quickgelu for descendants of OpenAI's weights, or weights in a folder with {CONFIG}",
            f"set model to {model}-quickgelu, or degla eval --activation both",
        )
    if trained and activation not in (None, trained):
        raise UserError(
            "clip",
            f"{model} was trained with activation {trained!r} and would be used with {activation!r}",
            "the same activation",
            "leave --activation out, or --activation both to see the damage",
        )
    with _open_clip() as open_clip, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        settings: dict[str, Any] = {"pretrained_text": False, "device": "cpu"}
        if pretrained and weights is None and not model.startswith("hf-hub:"):
            settings |= {"pretrained": pretrained, "force_quick_gelu": trained == "quick_gelu"}
        elif trained is None:
            settings["force_quick_gelu"] = activation == "quick_gelu"
        if folder:
            settings["load_weights"] = False
        try:
            network = open_clip.create_model(_schema_name(model), **settings)
            if weights:
                open_clip.load_checkpoint(network, str(weights))
        except Exception as error:
            raise _unloadable(model, pretrained, error) from error
        preprocess = open_clip.transform.image_transform_v2(
            open_clip.transform.PreprocessCfg(**network.visual.preprocess_cfg), is_train=False
        )
    arch["quick_gelu"] = bool(arch.get("quick_gelu") or settings.get("force_quick_gelu"))
    description = {
        "arch": arch,
        "activation": _activation(arch),
        "preprocess": json.loads(json.dumps(network.visual.preprocess_cfg)),
        "tokenizer": tokenizer_digest(model),
        "context_length": int(network.context_length),
    }
    if weights:
        _refuse_mismatch(weights, description)
    # The layout convolutions are fastest in, on CPU and GPU alike; transformers do not mind.
    network = network.to(device, memory_format=torch.channels_last).eval()
    return Clip(network, preprocess, tokenizer(model), description)


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
    arch, weights = _arch(model), _weights_file(model, pretrained)
    return digest([arch, path_digest(weights) if weights else pretrained, model if ":" in model else None])


# -- names -------------------------------------------------------------------------------------------------------------


@cache
def _open_clip_folder() -> Path:
    spec = find_spec("open_clip")
    assert spec and spec.origin
    return Path(spec.origin).parent


def _folder(model: str) -> Path | None:
    """The local folder that `model` names, if it names one."""
    for candidate in (Path(model).expanduser(), ROOT / model):
        if (candidate / CONFIG).is_file():
            return candidate
    return None


def _arch(model: str) -> dict[str, Any]:
    """open_clip's `model_cfg` of a model, a fresh copy; no import of open_clip except for hub names."""
    if folder := _folder(model):
        try:
            return _without_code(model, json.loads((folder / CONFIG).read_text())["model_cfg"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                "clip", f"{folder / CONFIG} holds no model: {error!r}", "open_clip's format", "mend it"
            ) from (error)
    if model.startswith("hf-hub:"):
        with _open_clip() as open_clip:
            try:
                return _without_code(model, open_clip.get_model_config(model))
            except UserError:
                raise
            except Exception as error:
                raise _unloadable(model, None, error) from error
    builtin = _open_clip_folder() / "model_configs" / f"{model.replace('/', '-')}.json"
    if Path(model).is_absolute() or not builtin.is_file():
        raise UserError(
            "clip",
            f"there is no model {model!r}",
            f"an open_clip architecture such as ViT-B-32, hf-hub:owner/name, or a folder with {CONFIG}",
            "set model to one of them",
        )
    return dict(json.loads(builtin.read_text()))


def _without_code(model: str, arch: Any) -> dict[str, Any]:
    """The architecture. Raises UserError when it asks to run code that its tokenizer's repository brings."""
    if "trust_remote_code" in json.dumps(arch):
        raise UserError(
            "clip", f"{model} asks for trust_remote_code", "a model that brings no code", f"take it out of its {CONFIG}"
        )
    return dict(arch)


def _weights_file(model: str, pretrained: str | None) -> Path | None:
    """The local file the weights come from; None for a tag, the hub, or random weights."""
    folder = _folder(model)
    if pretrained and pretrained != FOLDER and Path(pretrained).expanduser().is_file():
        return Path(pretrained).expanduser()
    if folder:
        inside = [path for pattern in ("*.safetensors", "*.bin", "*.pt", "*.pth") for path in folder.glob(pattern)]
        chosen = min(
            inside, key=lambda path: (path.name != WEIGHTS, path.suffix != ".safetensors", path.name), default=None
        )
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


def _schema_name(model: str) -> str:
    folder = _folder(model)
    return f"local-dir:{folder}" if folder else model


def _cuttable(text_cfg: dict[str, Any]) -> bool:
    causal = not (text_cfg.get("no_causal_mask") or text_cfg.get("embed_cls") or text_cfg.get("hf_model_name"))
    own = not (text_cfg.get("hf_tokenizer_name") or (text_cfg.get("tokenizer_kwargs") or {}).get("reduction_mask"))
    return causal and own and text_cfg.get("pool_type", "argmax") in ("argmax", "eos")


def _activation(arch: dict[str, Any]) -> str:
    return "quick_gelu" if arch.get("quick_gelu") else "gelu"


def _tag_quick_gelu(model: str, arch: dict[str, Any], tag: str) -> bool:
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

    Nothing does for a weights file without `degla.json` under an architecture that open_clip has in both kinds.
    """
    arch, weights = _arch(model), _weights_file(model, pretrained)
    if weights is None and pretrained and not model.startswith("hf-hub:"):
        with _open_clip():
            return "quick_gelu" if _tag_quick_gelu(model, arch, pretrained) else "gelu"
    if weights and not _folder(model):
        if (weights.parent / CARD).is_file():
            return _card(weights).get("activation")
        if (_open_clip_folder() / "model_configs" / f"{model.replace('/', '-')}-quickgelu.json").is_file():
            return None
    return _activation(arch)


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
    trained = _card(weights)
    for key in ("activation", "preprocess", "tokenizer"):
        if trained.get(key) != description[key]:
            raise UserError(
                "clip",
                f"{weights} was trained with {key} {trained.get(key)!r} and would be used with {description[key]!r}",
                f"the same {key}",
                f"set model to {weights.parent}",
            )


def _card(weights: Path) -> dict[str, Any]:
    card = weights.parent / CARD
    try:
        return dict(json.loads(card.read_text()))
    except ValueError as error:
        raise UserError("clip", f"{card} is no JSON: {error}", "the file degla wrote", "restore it") from error


def _unloadable(model: str, pretrained: str | None, error: Exception) -> UserError:
    what = f"cannot load {model!r}" + (f" with weights {pretrained!r}" if pretrained else "")
    reason = f"{type(error).__name__} {error}"[:300] if _online() else "the model hub cannot be reached from here"
    return UserError(
        "clip",
        f"{what}: {reason}",
        "a model this machine has or can download",
        "set model to a local folder and pretrained to a local weights file, or connect to the hub",
    )


@cache
def _online() -> bool:
    """Whether the model hub answers: one short connection, because its client retries for most of a minute."""
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
def _open_clip() -> Iterator[Any]:
    """open_clip, without its log lines (it warns of random weights that were asked for, and logs what we raise)."""
    root = logging.getLogger()
    handler, before = logging.NullHandler(), root.manager.disable
    root.addHandler(handler)
    logging.disable(logging.ERROR)
    try:
        import huggingface_hub.constants
        import open_clip

        if not _online():
            huggingface_hub.constants.HF_HUB_OFFLINE = True
        yield open_clip
    finally:
        logging.disable(before)
        root.removeHandler(handler)


# -- for other libraries -----------------------------------------------------------------------------------------------


def alone(folder: Path) -> "nn.Module":
    """What open_clip makes of a saved folder without any help of this module."""
    with _open_clip() as open_clip:
        network: nn.Module = open_clip.create_model(f"local-dir:{folder.absolute()}").eval()
        return network


def byte_pairs(model: str) -> tuple[dict[str, int], list[tuple[str, str]]] | None:
    """Vocabulary and merges of the model's byte-pair encoding; None where the tokenizer is of another kind."""
    with _open_clip() as open_clip:
        tokenize: Any = open_clip.get_tokenizer(_schema_name(model))
    if not hasattr(tokenize, "bpe_ranks"):
        return None
    return dict(tokenize.encoder), sorted(tokenize.bpe_ranks, key=tokenize.bpe_ranks.get)
