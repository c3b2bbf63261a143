"""Texts through a causal transformer without computing anything twice, or anything that is not asked for.

Under a causal mask the state at a position depends on the tokens up to it alone. So texts that begin alike (a caption
and its negatives, captions that begin with "a photo of") share the states of their common beginning, padding has none,
and the last layer is computed at the pooled positions only. The result is the plain transformer's up to rounding.

Shapes: N texts, L positions, S states (distinct beginnings), W width, H heads, E width of a head.
"""
# ruff: noqa: N815 - shapes are suffixes of names here, also of fields

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone uses
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Tree(NamedTuple):
    """The distinct beginnings of some texts.

    Attributes:
        token_S: last token of each.
        place_S: its position.
        state_NL: which of them each position of each text is; 0 behind the end, where nothing looks.
        home_S: a place (text * L + position) where each is found.
        end_N: position at which each text is pooled.
    """

    token_S: Tensor
    place_S: Tensor
    state_NL: Tensor
    home_S: Tensor
    end_N: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> "Tree":
        """The same with each tensor changed, for instance moved."""
        return Tree(*map(change, self))


def grow(tokens_NL: Tensor, end_N: Tensor) -> Tree:
    """The tree of texts that are pooled at `end_N`; what stands behind the end plays no part.

    It is grown on the CPU, so tokens that lie on a GPU are waited for.
    """
    tokens, end = tokens_NL.cpu().numpy(), end_N.cpu().numpy()
    count, length = tokens.shape
    state = np.zeros((count, length), dtype=np.int64)
    homes, total = [], 0
    parent = np.zeros(count, dtype=np.int64)
    for place in range(length):
        there = np.flatnonzero(end >= place)
        beginning = parent[there] << 32 | tokens[there, place]
        _, first, which = np.unique(beginning, return_index=True, return_inverse=True)
        state[there, place] = total + which
        parent[there] = which
        homes.append(there[first] * length + place)
        total += len(first)
    home = np.concatenate(homes)

    def there_too(values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(tokens_NL.device, non_blocking=True)

    token_S = there_too(tokens.reshape(-1)[home])
    return Tree(token_S, there_too(home % length), there_too(state), there_too(home), end_N)


def fits(transformer: Any) -> bool:
    """Whether `run` knows this transformer's blocks: open_clip's plain ones, not adapted by anything."""
    return all(
        type(block).__name__ == "ResidualAttentionBlock"
        and type(block.attn) is nn.MultiheadAttention
        and block.attn.in_proj_weight is not None
        and not block.attn.dropout
        for block in transformer.resblocks
    )


def run(transformer: Any, x_SW: Tensor, tree: Tree) -> Tensor:
    """States before the first layer -> states after the last, of the pooled positions alone: [N, W]."""
    return _through(transformer, _last, x_SW, tree)


def run_all(transformer: Any, x_SW: Tensor, tree: Tree) -> Tensor:
    """States before the first layer -> all states after the last: [S, W]."""
    return _through(transformer, _block, x_SW, tree)


def _through(transformer: Any, through_last: Callable[..., Tensor], x_SW: Tensor, tree: Tree) -> Tensor:
    *blocks, last = transformer.resblocks
    again = transformer.grad_checkpointing and torch.is_grad_enabled()
    for layer, block in [*((_block, block) for block in blocks), (through_last, last)]:
        x_SW = checkpoint(layer, block, x_SW, tree, use_reentrant=False) if again else layer(block, x_SW, tree)
    return x_SW


def _block(block: Any, x_SW: Tensor, tree: Tree) -> Tensor:
    attn = block.attn
    qkv = F.linear(block.ln_1(x_SW), attn.in_proj_weight, attn.in_proj_bias)
    q_NHLE, k_NHLE, v_NHLE = _heads(qkv, tree, 3, attn.num_heads)
    seen_NHLE = F.scaled_dot_product_attention(q_NHLE, k_NHLE, v_NHLE, is_causal=True)
    seen_SW = seen_NHLE.transpose(1, 2).flatten(0, 1).flatten(1).index_select(0, tree.home_S)
    return _rest(block, x_SW, seen_SW)


def _last(block: Any, x_SW: Tensor, tree: Tree) -> Tensor:
    attn, width = block.attn, x_SW.shape[1]
    bias = attn.in_proj_bias
    at_N = tree.state_NL.gather(1, tree.end_N[:, None])[:, 0]
    h_SW = block.ln_1(x_SW)
    q_NW = F.linear(h_SW.index_select(0, at_N), attn.in_proj_weight[:width], None if bias is None else bias[:width])
    kv = F.linear(h_SW, attn.in_proj_weight[width:], None if bias is None else bias[width:])
    k_NHLE, v_NHLE = _heads(kv, tree, 2, attn.num_heads)
    q_NH1E = q_NW.view(len(at_N), attn.num_heads, 1, -1)
    upto_N11L = torch.arange(tree.state_NL.shape[1], device=x_SW.device) <= tree.end_N[:, None, None, None]
    seen_NH1E = F.scaled_dot_product_attention(q_NH1E, k_NHLE, v_NHLE, attn_mask=upto_N11L)
    return _rest(block, x_SW.index_select(0, at_N), seen_NH1E.flatten(1))


def _heads(x_S: Tensor, tree: Tree, parts: int, heads: int) -> tuple[Tensor, ...]:
    """States side by side -> each part as [N, H, L, E], every text with its own row of states."""
    count, length = tree.state_NL.shape
    x_NL = x_S.index_select(0, tree.state_NL.reshape(-1))
    return x_NL.view(count, length, parts, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


def _rest(block: Any, x: Tensor, seen: Tensor) -> Tensor:
    x = x + block.ls_1(block.attn.out_proj(seen))
    after: Tensor = x + block.ls_2(block.mlp(block.ln_2(x)))
    return after
