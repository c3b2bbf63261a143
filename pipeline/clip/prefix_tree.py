"""Texts through a causal transformer without computing anything twice, or anything that is not asked for.

Under a causal mask the state at a position depends on the tokens up to it alone. So texts that begin alike (a caption
and its negatives, captions that begin with "a photo of") share the states of their common beginning, padding has none,
and the last layer is computed at the pooled positions only. The result is the plain transformer's up to rounding.

Attention gives each text a row of its own, which takes two to three times the states. With the states depth first
it is one kernel instead, torch's flex_attention: those that begin with a state follow it directly, so what a block of
neighbouring states looks at lies in few other blocks, and all others are skipped. That is for GPUs: on a CPU, and
uncompiled, flex_attention computes every pair of states, and it has no backward pass on a CPU.

Shapes: N texts, L positions, S states (distinct beginnings), W width, H heads, E width of a head.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone uses
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.clip.text_tree import BLOCK, Tree


def fits(transformer: Any) -> bool:
    """Whether `run` knows this transformer's blocks: open_clip's plain ones, not adapted by anything."""
    return all(
        type(block).__name__ == "ResidualAttentionBlock"
        and type(block.attn) is nn.MultiheadAttention
        and block.attn.in_proj_weight is not None
        and not block.attn.dropout
        for block in transformer.resblocks
    )


def compile_blocks(transformer: Any) -> None:
    """Have the blocks compiled when they first run, in place; the text tower's run as one piece each, whoever asks."""
    for block in transformer.resblocks:
        block.compile()


def is_compiled(transformer: Any) -> bool:
    """Whether `compile_blocks` was told."""
    return all(block._compiled_call_impl is not None for block in transformer.resblocks)


def is_fused(transformer: Any) -> bool:
    """Whether attention over the tree is one kernel here, which wants states depth first."""
    attn = transformer.resblocks[0].attn
    heads_fit = attn.head_dim in (16, 32, 64, 128, 256)
    return heads_fit and is_compiled(transformer) and bool(attn.in_proj_weight.is_cuda)


def run(transformer: Any, x_SW: Tensor, tree: Tree) -> Tensor:
    """States before the first layer -> states after the last, of the pooled positions alone: [N, W]."""
    return _through(transformer, _last, x_SW, tree)


def run_all(transformer: Any, x_SW: Tensor, tree: Tree) -> Tensor:
    """States before the first layer -> all states after the last: [S, W]."""
    return _through(transformer, _block, x_SW, tree)


def _through(transformer: Any, through_last: Callable[..., Tensor], x_SW: Tensor, tree: Tree) -> Tensor:
    *blocks, last = transformer.resblocks
    again = transformer.grad_checkpointing and torch.is_grad_enabled()
    compiled, mask = is_compiled(transformer), None if tree.after_S is None else _mask(tree)
    for layer, block in [*((_block, block) for block in blocks), (through_last, last)]:
        way, given = _compiled(layer) if compiled else layer, (block, x_SW, tree, mask)
        x_SW = checkpoint(way, *given, use_reentrant=False) if again else way(*given)
    return x_SW


@cache
def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Once for all blocks and any number of states: texts are of other lengths in every batch."""
    compiled: Callable[..., Tensor] = torch.compile(function, dynamic=True)
    return compiled


def _block(block: Any, x_SW: Tensor, tree: Tree, mask: Any) -> Tensor:
    attn = block.attn
    qkv = F.linear(block.ln_1(x_SW), attn.in_proj_weight, attn.in_proj_bias)
    if mask is not None:
        return _rest(block, x_SW, _attend(qkv, attn.num_heads, mask))
    q_NHLE, k_NHLE, v_NHLE = _heads(qkv, tree, 3, attn.num_heads)
    seen_NHLE = F.scaled_dot_product_attention(q_NHLE, k_NHLE, v_NHLE, is_causal=True)
    seen_SW = seen_NHLE.transpose(1, 2).flatten(0, 1).flatten(1).index_select(0, tree.home_S)
    return _rest(block, x_SW, seen_SW)


def _last(block: Any, x_SW: Tensor, tree: Tree, mask: Any) -> Tensor:
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


def _mask(tree: Tree) -> Any:
    """What flex_attention is told: which blocks a block looks at, and which states a state."""
    from torch.nn.attention.flex_attention import BlockMask

    after_S, near_QQ = tree.after_S, tree.near_QQ
    assert after_S is not None and near_QQ is not None

    def begins(batch: Tensor, head: Tensor, at: Tensor, seen: Tensor) -> Tensor:
        return (seen <= at) & (at < after_S[seen])

    counts = near_QQ.sum(dim=1, dtype=torch.int32)
    indices = near_QQ.argsort(dim=1, descending=True, stable=True).to(torch.int32)
    return BlockMask.from_kv_blocks(
        counts[None, None], indices[None, None], BLOCK_SIZE=BLOCK, mask_mod=begins, seq_lengths=(len(after_S),) * 2
    )


def _attend(qkv: Tensor, heads: int, mask: Any) -> Tensor:
    """Queries, keys and values side by side, [S, 3 * H * E] -> what each state sees, [S, H * E]."""
    from torch.nn.attention.flex_attention import flex_attention

    q_1HSE, k_1HSE, v_1HSE = qkv.view(1, len(qkv), 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    seen_1HSE: Any = flex_attention(q_1HSE, k_1HSE, v_1HSE, block_mask=mask)
    seen_SW: Tensor = seen_1HSE[0].transpose(0, 1).flatten(1)
    return seen_SW
