"""Images through a vision transformer that is pooled at its first token, without computing what is not asked for.

Behind the last layer only that token is looked at, so there it alone is computed, and the others give their keys and
values. Patches do not overlap, so one matrix product projects them. The result is open_clip's up to rounding.

Shapes: B images, C channels, H, W pixels, L tokens (the first, then the patches), P their width.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone uses
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.clip import prefix_tree


def fits(tower: Any) -> bool:
    """Whether `run` knows this tower: open_clip's plain one, pooled at the first token, not compiled or adapted."""
    return (
        type(tower).__name__ == "VisionTransformer"
        and tower.attn_pool is None
        and tower.pool_type == "tok"
        and not tower.output_tokens
        and tower._compiled_call_impl is None
        and type(tower.conv1) is nn.Conv2d
        and tower.conv1.kernel_size == tower.conv1.stride
        and tower.transformer.batch_first
        and prefix_tree.fits(tower.transformer)
    )


def run(tower: Any, image_BCHW: Tensor) -> Tensor:
    """Images of the tower's size -> what it says of each, [B, width of the embedding]."""
    x_BLP = tower.patch_dropout(_tokens(tower, image_BCHW))
    x_BLP = tower.ln_pre(x_BLP)
    again = tower.transformer.grad_checkpointing and torch.is_grad_enabled()
    *blocks, last = tower.transformer.resblocks
    for block in blocks:
        x_BLP = checkpoint(block, x_BLP, use_reentrant=False) if again else block(x_BLP)
    first = _compiled_first() if prefix_tree.is_compiled(tower.transformer) else _first
    first_B1P = checkpoint(first, last, x_BLP, use_reentrant=False) if again else first(last, x_BLP)
    pooled: Tensor = tower.ln_post(first_B1P[:, 0])
    return pooled if tower.proj is None else pooled @ tower.proj


@cache
def _compiled_first() -> Callable[..., Tensor]:
    compiled: Callable[..., Tensor] = torch.compile(_first)
    return compiled


def _tokens(tower: Any, image_BCHW: Tensor) -> Tensor:
    weight, (high, wide) = tower.conv1.weight, tower.conv1.kernel_size
    count, channels, height, width = image_BCHW.shape
    cut = image_BCHW.reshape(count, channels, height // high, high, width // wide, wide)
    patches = cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    x = F.linear(patches, weight.flatten(1), tower.conv1.bias)
    first = tower.class_embedding.to(x.dtype).expand(count, 1, -1)
    tokens: Tensor = torch.cat([first, x], dim=1) + tower.positional_embedding.to(x.dtype)
    return tokens


def _first(block: Any, x_BLP: Tensor) -> Tensor:
    """A layer's output at the first token."""
    h_BLP = block.ln_1(x_BLP)
    seen_B1P, _ = block.attn(h_BLP[:, :1], h_BLP, h_BLP, need_weights=False)
    x_B1P = x_BLP[:, :1] + block.ls_1(seen_B1P)
    after: Tensor = x_B1P + block.ls_2(block.mlp(block.ln_2(x_B1P)))
    return after
