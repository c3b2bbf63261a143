"""Images and texts to embeddings of L2 norm 1.

Shapes: B images or texts, L tokens, C channels, H and W pixels, D embedding width, N all items of a call.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.clip.tokens import Tokenize, pad
from pipeline.errors import UserError
from pipeline.stage import Progress, silent

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor, nn

    from pipeline.clip.text_tree import Tree


PICTURES = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""Kinds of image files that are opened, by content; of others Pillow hands some (EPS) to a program outside."""


@dataclass(frozen=True)
class Clip:
    """A model with all that is needed to feed it.

    Attributes:
        model: open_clip's CLIP or CustomTextCLIP, fp32, in evaluation mode.
        preprocess: evaluation transform, PIL image -> tensor CHW.
        tokenize: texts -> token ids, see `tokenizer`.
        description: arch, activation, preprocess (size, mean, std, interpolation, resize_mode), tokenizer,
            context_length; plain JSON data, written to `degla.json`.
    """

    model: "nn.Module"
    preprocess: Callable[["Image"], "Tensor"]
    tokenize: Tokenize
    description: dict[str, Any]


def encode_image(model: "nn.Module", image_BCHW: "Tensor") -> "Tensor":
    """Images -> `image_BD`, each row of L2 norm 1."""
    import torch

    from pipeline.clip import image_tower

    tower: Any = getattr(model, "visual", None)
    if image_tower.fits(tower):
        return unit(image_tower.run(tower, image_BCHW))
    return unit(model.encode_image(image_BCHW.to(memory_format=torch.channels_last)))  # type: ignore[operator]


class Pooling(NamedTuple):
    """Where a text tower looks for what a text says: open_clip's kind of pooling, and the token that ends a text.

    `fused`: its attention over the tree is one kernel.
    """

    kind: str
    end_id: int | None
    fused: bool = False


def pooling(model: "nn.Module") -> Pooling | None:
    """How a text tower pools whose texts can share what their beginnings give (prefix_tree.py); None for another."""
    from pipeline.clip import prefix_tree

    tower: Any = getattr(model, "text", model)
    return pooling_of(tower) if _is_cuttable(tower) and prefix_tree.fits(tower.transformer) else None


def tree(tokens_BL: "Tensor", pooled: Pooling) -> "Tree":
    """The distinct beginnings of padded texts, for `encode_text`."""
    import torch
    from open_clip.transformer import text_global_pool

    from pipeline.clip import text_tree

    place_BL1 = torch.arange(tokens_BL.shape[1], device=tokens_BL.device).expand(tokens_BL.shape)[..., None]
    end_B = text_global_pool(place_BL1, tokens_BL, pooled.kind, eos_token_id=pooled.end_id)[:, 0]
    grown = text_tree.grow(tokens_BL, end_B)
    return text_tree.depth_first(grown) if pooled.fused else grown


def encode_text(model: "nn.Module", tokens_BL: "Tensor", grown: "Tree | None" = None) -> "Tensor":
    """Token ids, padded at the end to any common length up to the context length -> `text_BD`, each row of L2 norm 1.

    `grown` is their `tree` where the model has a `pooling`; without it is grown here, which waits for a GPU.

    Exact for every L that holds the longest text: the tower is causal and pooled at the end token, so the positions
    behind it change nothing, and texts share what their common beginnings give (prefix_tree.py). Towers of another
    kind need their full context length, which `tokenizer` gives them.
    """
    from open_clip.transformer import text_global_pool

    from pipeline.clip import prefix_tree

    tower: Any = getattr(model, "text", model)
    length = tokens_BL.shape[1]
    if not _is_cuttable(tower):
        return unit(model.encode_text(tokens_BL))  # type: ignore[operator]
    dtype, pooled = tower.transformer.get_cast_dtype(), pooling_of(tower)
    if prefix_tree.fits(tower.transformer):
        grown = tree(tokens_BL, pooled) if grown is None else grown
        placed_SW = tower.positional_embedding.index_select(0, grown.place_S)  # [] adds gradients up in any order
        x_SW = tower.token_embedding(grown.token_S).to(dtype) + placed_SW.to(dtype)
        x_BW = prefix_tree.run(tower.transformer, x_SW, grown)
    else:
        x_BLW = tower.token_embedding(tokens_BL).to(dtype) + tower.positional_embedding[:length].to(dtype)
        x_BLW = tower.transformer(x_BLW, attn_mask=tower.attn_mask[:length, :length])
        x_BW = text_global_pool(x_BLW, tokens_BL, pooled.kind, eos_token_id=pooled.end_id)
    return unit(project(tower, tower.ln_final(x_BW)))


def project(tower: Any, x: "Tensor") -> "Tensor":
    """What a text tower's last states are in the space of the embeddings."""
    projection = tower.text_projection
    if projection is None:
        return x
    found: Tensor = projection(x) if callable(projection) else x @ projection
    return found


def _is_cuttable(tower: Any) -> bool:
    """Whether padding behind the end of a text changes nothing: the tower is causal and pooled at the end."""
    has_own = hasattr(tower, "token_embedding") and tower.attn_mask is not None
    return has_own and getattr(tower, "cls_emb", None) is None


def pooling_of(tower: Any) -> Pooling:
    """How a text tower pools, whatever it is."""
    from pipeline.clip import prefix_tree

    kind = getattr(tower, "text_pool_type", None) or tower.pool_type
    fused = prefix_tree.fits(tower.transformer) and prefix_tree.is_fused(tower.transformer)
    return Pooling(kind, getattr(tower, "text_eos_id", None) or getattr(tower, "eos_id", None), fused)


def unit(x_BD: "Tensor") -> "Tensor":
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

    from pipeline.clip import prefix_tree

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
    """Image files, or functions that give an image -> `image_ND`, fp32 on the CPU, L2 norm 1, in the order given.

    Args:
        clip: the model, already on `device`.
        images: paths, or callables without arguments.
        batch: images per forward pass.
        workers: threads that decode the next batch while this one is encoded; at least one.
        device: where the model is.
        progress: called with "images" after each batch.

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
            progress("images", min(end, len(images)), len(images))
    return torch.cat(found) if found else torch.empty(0, 0)


def device(name: str) -> str:
    """The torch device of a setting: `auto` is cuda where there is one, else cpu."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def read_picture(path: Path, size: int | None = None, content: bytes | None = None) -> "Image":
    """An image file as RGB, turned upright by its EXIF tag; `content` are its bytes where they were read already.

    With `size`, a JPEG is decoded at the smallest of its built-in scales whose both sides stay >= `size` pixels,
    several times faster than decoding all of it. Raises UserError when the file is missing or broken.
    """
    from PIL import Image

    try:
        with Image.open(path if content is None else BytesIO(content), formats=PICTURES) as picture:
            if size:
                picture.draft("RGB", (size, size))
            return upright(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            "images", f"cannot read {path}: {error}", "a whole image file", "repair it, or run ingest again"
        ) from error


def upright(image: "Image") -> "Image":
    """An opened image, decoded as RGB and turned upright by its EXIF tag; of an animation the first frame.

    Pillow converts CMYK and palettes and lays transparency aside, as CLIP's own preprocessing does. Raises almost
    anything on a broken file.
    """
    from PIL import ImageOps

    return ImageOps.exif_transpose(image).convert("RGB")


def crop(clip: Clip) -> Callable[["Image"], "Tensor"]:
    """The first half of `clip.preprocess`: resize and crop -> uint8 CHW; `normalise` is the other half."""
    from torchvision.transforms import Compose, PILToTensor

    transforms: Any = clip.preprocess
    cut: Callable[[Image], Tensor] = Compose([*transforms.transforms[:-2], PILToTensor()])  # not ToTensor and Normalize
    return cut


def normalise(clip: Clip, image_BCHW: "Tensor") -> "Tensor":
    """uint8 images -> what the model reads, on their device; after `crop`, bit for bit what `preprocess` gives."""
    settings = clip.description["preprocess"]
    mean, deviation = (_of_channels(tuple(settings[name]), image_BCHW.device) for name in ("mean", "std"))
    return image_BCHW.float().div(255).sub_(mean).div_(deviation)


@lru_cache(maxsize=8)
def _of_channels(values: tuple[float, ...], device: "torch.device") -> "Tensor":
    """A number per channel, moved to the device once: torchvision's normalize does in every call, and waits for it."""
    import torch

    return torch.tensor(values, device=device)[:, None, None]
