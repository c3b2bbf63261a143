"""The distinct beginnings of some texts: what they are, grown on the CPU while a batch is loaded.

Shapes: N texts, L positions, S states (distinct beginnings), Q blocks of states.
"""
# ruff: noqa: N815 - shapes are suffixes of names here, also of fields

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 128
"""States of a block, as flex_attention has it."""


class Tree(NamedTuple):
    """The distinct beginnings of some texts.

    Attributes:
        token_S: last token of each.
        place_S: its position.
        state_NL: which of them each position of each text is; 0 behind the end, where nothing looks.
        home_S: a place (text * L + position) where each is found.
        end_N: position at which each text is pooled.
        after_S: the first state behind those that begin with each; None = states do not stand depth first.
        near_QQ: which blocks of states look at which (prefix_tree.py); likewise.
    """

    token_S: Tensor
    place_S: Tensor
    state_NL: Tensor
    home_S: Tensor
    end_N: Tensor
    after_S: Tensor | None = None
    near_QQ: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> "Tree":
        """The same with each tensor changed, for instance moved."""
        changed: Any = (tensor if tensor is None else change(tensor) for tensor in self)
        return Tree(*changed)


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


def depth_first(tree: Tree) -> Tree:
    """The same tree with its states depth first, filled up to whole blocks by states that nothing looks at.

    It is ordered on the CPU, so a tree that lies on a GPU is waited for.
    """
    state_NL, home_S, end_N = (tensor.cpu().numpy() for tensor in (tree.state_NL, tree.home_S, tree.end_N))
    (count, length), states = state_NL.shape, len(home_S)
    there_NL = np.arange(length) <= end_N[:, None]
    path_NL = np.where(there_NL, state_NL, -1)
    rank_N = np.empty(count, dtype=np.int64)
    rank_N[np.lexsort(path_NL.T[::-1])] = np.arange(count)  # texts that begin alike stand together
    rank_NL = np.broadcast_to(rank_N[:, None], state_NL.shape)[there_NL]
    first_S, last_S = np.full(states, count), np.full(states, -1)
    np.minimum.at(first_S, state_NL[there_NL], rank_NL)
    np.maximum.at(last_S, state_NL[there_NL], rank_NL)
    order_S = np.lexsort((home_S % length, first_S))
    new_S = np.empty(states, dtype=np.int64)
    new_S[order_S] = np.arange(states)

    whole = -(-states // BLOCK) * BLOCK
    after_S = np.arange(1, whole + 1)
    after_S[:states] = np.searchsorted(first_S[order_S], last_S[order_S], side="right")  # whose first text comes later
    seen_SL = new_S[state_NL[home_S // length]]
    before_SL = np.arange(length) <= (home_S % length)[:, None]
    near_QQ = np.eye(whole // BLOCK, dtype=bool)
    near_QQ[np.broadcast_to(new_S[:, None], seen_SL.shape)[before_SL] // BLOCK, seen_SL[before_SL] // BLOCK] = True

    def there_too(values: Any) -> Tensor:
        return torch.from_numpy(values).to(tree.token_S.device, non_blocking=True)

    def filled(tensor: Tensor) -> Tensor:
        return torch.nn.functional.pad(tensor[there_too(order_S)], (0, whole - states))

    return tree._replace(
        token_S=filled(tree.token_S),
        place_S=filled(tree.place_S),
        state_NL=there_too(np.where(there_NL, new_S[state_NL], 0)),
        home_S=filled(tree.home_S),
        after_S=there_too(after_S),
        near_QQ=there_too(near_QQ),
    )
