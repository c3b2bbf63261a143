"""Weights files as others write them, read without running anything in them, by open_clip's names.

| file | written by |
|---|---|
| safetensors, or a state dict of torch | open_clip, Hugging Face's `CLIPModel` |
| `{"state_dict" / "model" / "model_state_dict" / "module": ...}` | trainers: open_clip's, CoN-CLIP's, TripletCLIP's |
| a TorchScript archive | OpenAI |
| .npz | big_vision (SigLIP), read by open_clip itself |

Names may have any common prefix (`module.`, `model.`, `_orig_mod.`). What else stands in a checkpoint is left alone.
"""

import pickle
import re
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pipeline.clip import hugging_face
from pipeline.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Weights = dict[str, "Tensor"]

WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
_NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")
"""What OpenAI keeps among its weights."""
_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip


def computes_quick_gelu(path: Path) -> bool:
    """Whether a weights file brings code that says so: a TorchScript archive of OpenAI's."""
    if not _is_torchscript(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(b"QuickGELU" in archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))


def check(path: Path) -> None:
    """Raise UserError, as `readable` does, for a file that is damaged or holds no weights; writes nothing."""
    if path.suffix not in (".npz", ".npy"):
        _weights(path)


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """A weights file that open_clip reads with strict names: the file itself, or a temporary one with its weights.

    Raises UserError with the reason, and what converts the file where there is such a command.
    """
    if path.suffix in (".npz", ".npy"):
        yield path
        return
    given, found = _weights(path)
    if found.keys() == given.keys() and (path.suffix == ".safetensors") == _is_safetensors(path):
        yield path
        return
    from safetensors import torch as safetensors

    with TemporaryDirectory(prefix="degla-weights-") as folder:
        whole = Path(folder) / "weights.safetensors"
        safetensors.save_file({name: tensor.contiguous().clone() for name, tensor in found.items()}, whole)
        yield whole


def shape(path: Path) -> dict[str, Any]:
    """What open_clip's `model_cfg` would say of weights in CLIP's own layout; empty for others.

    Heads leave no trace in the weights.
    """
    found = by_our_names(_read(path))
    try:
        patch, grid = found["visual.conv1.weight"].shape[-1], (len(found["visual.positional_embedding"]) - 1) ** 0.5
        return {
            "embed_dim": found["text_projection"].shape[1],
            "vision_cfg": {
                "image_size": round(patch * grid),
                "layers": _blocks(found, "visual.transformer.resblocks."),
                "width": len(found["visual.conv1.weight"]),
                "patch_size": patch,
            },
            "text_cfg": {
                "context_length": len(found["positional_embedding"]),
                "vocab_size": len(found["token_embedding.weight"]),
                "width": len(found["ln_final.weight"]),
                "layers": _blocks(found, "transformer.resblocks."),
            },
        }
    except (KeyError, IndexError):
        return {}


def _blocks(found: Weights, prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in found if name.startswith(prefix)})


def by_our_names(given: dict[Any, Any]) -> Weights:
    """The weights of a checkpoint by open_clip's names; empty when it holds none."""
    import torch

    inside = next((given[key] for key in WRAPPERS if isinstance(given.get(key), dict)), given)
    found = {str(name): tensor for name, tensor in inside.items() if isinstance(tensor, torch.Tensor)}
    prefixes = {name.removesuffix("logit_scale") for name in found if name.split(".")[-1] == "logit_scale"}
    if len(prefixes) == 1 and (prefix := prefixes.pop()):
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}
    found = {name: tensor for name, tensor in found.items() if name.split(".")[-1] not in _NO_WEIGHTS}
    return hugging_face.from_names(found) if hugging_face.has_names(found) else found


def _weights(path: Path) -> tuple[dict[Any, Any], Weights]:
    """What a file holds, and the weights among it by open_clip's names. Raises UserError where there are none."""
    given = _read(path)
    found = by_our_names(given)
    if not found:
        raise _refusal(path, f"it holds no weights, only {', '.join(map(str, list(given)[:5])) or 'nothing'}")
    return given, found


# -- reading -----------------------------------------------------------------------------------------------------------


def _read(path: Path) -> dict[Any, Any]:
    """What a file holds: name -> tensor, or a checkpoint around it. Raises UserError."""
    import torch
    from safetensors import SafetensorError
    from safetensors import torch as safetensors

    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise _refusal(path, "it is Git LFS's note of a file that was not fetched", "git lfs pull")
    try:
        if _is_safetensors(path):
            return dict(safetensors.load_file(path))
        if _is_torchscript(path):
            return _torchscript(path)
        if start.startswith(b"PK") and not zipfile.is_zipfile(path):
            raise _refusal(path, "it is cut short", "download or copy it again")
        with torch.serialization.safe_globals([Namespace]):
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except SafetensorError as error:
        raise _refusal(path, f"it is cut short or damaged: {error}", "download or copy it again") from error
    except UserError:
        raise
    except Exception as error:  # a hostile file chooses what fails
        raise _no_weights(path, error) from error
    if not isinstance(found, dict):
        raise _refusal(path, f"it holds a {type(found).__name__}")
    return found


def _no_weights(path: Path, error: Exception) -> UserError:
    """Why torch does not read a file: it holds objects of some class, or is damaged, or is something else."""
    import torch

    try:
        kinds = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # whatever a damaged file makes of its pickle
        kinds = re.findall(r"GLOBAL ([\w.]+)", str(error))[:1]
    if not kinds:
        return _refusal(path, "it is damaged, or no weights file", "download or copy it again")
    is_model = any(kind.startswith("torch.nn.modules.") for kind in kinds)
    part = ".state_dict()" if is_model else "['state_dict']"
    others = sorted({kind.split(".")[0] for kind in kinds} - {"torch"} if is_model else kinds)
    return _refusal(
        path,
        f"it is a whole pickled model, with classes of {', '.join(others) or 'torch'}"
        if is_model
        else f"beside weights it holds objects of {others[0]}",
        f"if you trust it (this runs code of it): python -c \"import torch; m = torch.load('{path}', 'cpu', "
        f"weights_only=False); torch.save(m{part}, '{path.stem}.weights.pt')\"",
    )


def _refusal(path: Path, why: str, fix: str = "set pretrained to a weights file") -> UserError:
    return UserError(
        "clip",
        f"cannot load {path}: {why}",
        "safetensors, a state dict of torch, a trainer's checkpoint, or OpenAI's archive",
        fix,
    )


def _is_safetensors(path: Path) -> bool:
    """By content: eight bytes of length, then JSON."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _torchscript(path: Path) -> Weights:
    """Parameters and buffers of a TorchScript archive. torch.jit.load would run code that the archive brings."""
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl"))
        with archive.open(name) as file:
            root = _Archive(file, archive, name.removesuffix(".pkl")).load()
    found: Weights = {}
    _collect(root, "", found)
    return found


class _Module:
    """Stands in for every class of the archive."""


def _collect(module: _Module, prefix: str, into: Weights) -> None:
    import torch

    for name, value in vars(module).items():
        if isinstance(value, torch.Tensor):
            into[prefix + name] = value
        elif isinstance(value, _Module):
            _collect(value, f"{prefix}{name}.", into)


class _Archive(pickle.Unpickler):
    """Builds tensors, plain values and stand-ins, and nothing else that a file may ask for."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        import torch

        if module.startswith("__torch__"):
            return _Module
        if module == "torch" and name in _STORAGES:
            return getattr(torch, _STORAGES[name])
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle":
            return lambda values, *_: values  # typed lists of plain values
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")

    def persistent_load(self, pid: Any) -> "Tensor":
        import torch

        _, dtype, key, *_ = pid
        content = bytearray(self._archive.read(f"{self._folder}/{key}"))
        return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _tensor(storage: "Tensor", offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> "Tensor":
    return storage.as_strided(shape, stride, offset)
