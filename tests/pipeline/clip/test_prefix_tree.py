"""Attention over the tree in one kernel, and compiled towers: the embeddings and gradients of the plain way."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_mask

from pipeline import clip
from pipeline.clip import prefix_tree, text_tree, tuning


@pytest.fixture
def model(tmp_path: Path) -> nn.Module:
    vision = {"image_size": 16, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    text = {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3}
    (tmp_path / clip.CONFIG).write_text(
        json.dumps({"model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}})
    )
    return clip.load(str(tmp_path), seed=1).model


def texts(count: int, seed: int = 0, most: int = 20) -> Tensor:
    """Captions of few words, so that many begin alike, and some are the beginning of another or the same."""
    draw = random.Random(seed)
    found = [[draw.randrange(1, 5) for _ in range(draw.randrange(1, most))] for _ in range(count - 3)]
    found += [found[0], found[1][:2], found[1][:1]]
    return clip.pad([[49_406, *text, 49_407] for text in found])


def grown(model: Any, tokens_NL: Tensor) -> tuple[text_tree.Tree, text_tree.Tree]:
    pooled = clip.pooling(model)
    return clip.tree(tokens_NL, pooled), clip.tree(tokens_NL, pooled._replace(fused=True))


def test_states_look_at_their_beginnings_and_at_nothing_else(model: nn.Module) -> None:
    tokens_NL = texts(60)
    plain, tree = grown(model, tokens_NL)
    states = len(plain.token_S)
    assert states > 2 * text_tree.BLOCK and len(tree.token_S) % text_tree.BLOCK == 0
    path: dict[int, tuple[int, ...]] = {}  # what each state says, by what its texts say
    for row, (tokens, end) in enumerate(zip(tokens_NL.tolist(), plain.end_N.tolist(), strict=True)):
        for place in range(end + 1):
            state = int(tree.state_NL[row, place])
            assert path.setdefault(state, tuple(tokens[: place + 1])) == tuple(tokens[: place + 1])
            assert (int(tree.token_S[state]), int(tree.place_S[state])) == (tokens[place], place)
    assert sorted(path) == list(range(states)) and len(set(path.values())) == states
    at, seen = torch.meshgrid(torch.arange(states), torch.arange(states), indexing="ij")
    expected = torch.tensor([[path[a][: len(path[b])] == path[b] for b in range(states)] for a in range(states)])
    mask = prefix_tree._mask(tree)
    assert torch.equal(mask.mask_mod(None, None, at, seen), expected)
    blocks = torch.zeros(len(tree.token_S), len(tree.token_S), dtype=torch.bool)
    blocks[:states, :states] = expected
    blocks |= torch.eye(len(blocks), dtype=torch.bool)
    needed = blocks.unflatten(0, (-1, text_tree.BLOCK)).unflatten(2, (-1, text_tree.BLOCK)).any(dim=(1, 3))
    assert torch.equal(tree.near_QQ, needed)
    assert torch.equal(mask.to_dense()[0, 0].bool(), needed)


def test_one_kernel_says_what_the_plain_way_says(model: nn.Module) -> None:
    tokens_NL = texts(40)
    with torch.no_grad():  # on a CPU the kernel has no backward pass
        plain, fused = (clip.encode_text(model, tokens_NL, tree) for tree in grown(model, tokens_NL))
    torch.testing.assert_close(fused, plain, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("again", [False, True])
def test_gradients_through_states_depth_first_are_the_plain_way_s(
    model: Any, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's mask, given to plain attention."""

    def attention(q: Tensor, k: Tensor, v: Tensor, block_mask: Any) -> Tensor:
        seen = create_mask(block_mask.mask_mod, None, None, q.shape[2], q.shape[2], device="cpu")
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)

    monkeypatch.setattr("torch.nn.attention.flex_attention.flex_attention", attention)
    model.double().set_grad_checkpointing(again)
    tokens_NL, found = texts(40), []
    for tree in grown(model, tokens_NL):
        model.zero_grad()
        embedded = clip.encode_text(model, tokens_NL, tree)
        embedded.pow(3).sum().backward()
        found.append((embedded, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (plain, expected), (fused, gradients) = found
    torch.testing.assert_close(fused, plain, atol=1e-12, rtol=1e-10)
    assert expected.keys() == gradients.keys() and len(expected) > 30
    torch.testing.assert_close(list(gradients.values()), list(expected.values()), atol=1e-12, rtol=1e-9)


def test_neighbours_look_at_few_blocks(model: nn.Module) -> None:
    """Five texts of a caption stand together: what is computed does not grow with the square of the batch."""
    draw = random.Random(0)
    captions = [[draw.randrange(1, 40_000) for _ in range(12)] for _ in range(100)]
    rows = [
        [49_406, *caption[:cut], 7 + cut, *caption[cut + 1 :], 49_407]
        for caption in captions
        for cut in range(2, 12, 2)
    ]
    _, tree = grown(model, clip.pad(rows))
    assert len(tree.near_QQ) > 20 and tree.near_QQ.sum() < 3 * len(tree.near_QQ)


def test_a_cpu_and_an_uncompiled_tower_take_the_plain_way(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not clip.pooling(model).fused
    tuning.speed_up(model, checkpoint_gradients=False, compiled=True)
    assert prefix_tree.is_compiled(model.transformer) and prefix_tree.is_compiled(model.visual.transformer)
    assert not clip.pooling(model).fused
    monkeypatch.setattr(Tensor, "is_cuda", True)
    assert clip.pooling(model).fused


@pytest.mark.slow
def test_compiled_towers_say_the_same_and_are_compiled_once_for_all_lengths(model: Any, tmp_path: Path) -> None:
    plain = clip.load(str(tmp_path), seed=1).model
    tuning.speed_up(model, checkpoint_gradients=False, compiled=True)
    torch._dynamo.reset()
    for number, most in enumerate((20, 9, 15)):
        tokens_NL, image_BCHW = texts(30 + number, number, most), torch.randn(4, 3, 16, 16)
        found = []
        for one in (plain, model):
            one.zero_grad()
            embedded = torch.cat([clip.encode_text(one, tokens_NL), clip.encode_image(one, image_BCHW)])
            embedded.pow(3).sum().backward()
            found.append((embedded, [p.grad for p in one.parameters() if p.grad is not None]))
        (expected, gradients), (compiled, others) = found
        torch.testing.assert_close(compiled, expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(others, gradients, atol=1e-5, rtol=1e-3)
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        if number == 0:
            first = graphs
    assert first and graphs <= first + 2
