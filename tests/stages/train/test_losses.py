"""The DeGLA terms against their formulas as scalar loops, in fp64, forward and backward; their symmetries."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages.train import losses
from stages.train.losses import Embeddings
from tests.stages.loops import MASKS, B, D, K, assert_same, embeddings, minus_log_share, unit


def base_by_loops(student: Embeddings, scale: Tensor) -> Tensor:
    image, text, neg, have = *student[:3], student.have_BK
    i2t = t2i = torch.zeros((), dtype=torch.float64)
    for i in range(B):
        options = [image[i] @ text[j] for j in range(B)]
        options += [image[i] @ neg[j][k] for j in range(B) for k in range(K) if have[j][k]]
        i2t = i2t + minus_log_share(image[i] @ text[i], options, scale) / B
        t2i = t2i + minus_log_share(image[i] @ text[i], [image[j] @ text[i] for j in range(B)], scale) / B
    return (i2t + t2i) / 2


def sigmoid_by_loops(student: Embeddings, scale: Tensor, bias: Tensor) -> Tensor:
    image, text, neg, have = *student[:3], student.have_BK
    loss = torch.zeros((), dtype=torch.float64)
    for i in range(B):
        pairs = [(image[i] @ text[j], 1 if j == i else -1) for j in range(B)]
        pairs += [(image[i] @ neg[j][k], -1) for j in range(B) for k in range(K) if have[j][k]]
        for x, sign in pairs:
            loss = loss + torch.log(1 + torch.exp(-sign * (scale * x + bias))) / B
    return loss


def distill_by_loops(student: Embeddings, teacher: Embeddings) -> Tensor:
    loss = torch.zeros((), dtype=torch.float64)
    for i in range(B):
        for d in range(D):
            loss = loss + (student.image_BD[i][d] - teacher.image_BD[i][d]) ** 2
            loss = loss + (student.text_BD[i][d] - teacher.text_BD[i][d]) ** 2
            for k in range(K):
                if student.have_BK[i][k]:
                    loss = loss + (student.neg_BKD[i][k][d] - teacher.neg_BKD[i][k][d]) ** 2
    return loss


def igc_by_loops(student: Embeddings, scale: Tensor) -> Tensor:
    image, text, neg, have = *student[:3], student.have_BK
    loss = torch.zeros((), dtype=torch.float64)
    for i in range(B):
        options = [image[i] @ text[i]] + [image[i] @ neg[i][k] for k in range(K) if have[i][k]]
        loss = loss + minus_log_share(options[0], options, scale) / B
    return loss


def tgc_by_loops(student: Embeddings, teacher: Embeddings, scale: float, layout: str) -> Tensor:
    text, neg, have = student.text_BD, student.neg_BKD, student.have_BK
    loss = torch.zeros((), dtype=torch.float64)
    for i in range(B):
        own = [(i, k) for k in range(K)] if layout == "paper" else [divmod(t * B + i, K) for t in range(K)]
        options = [text[i] @ teacher.text_BD[i]] + [text[i] @ neg[j][k] for j, k in own if have[j][k]]
        loss = loss + minus_log_share(options[0], options, scale) / B
    return loss


def pgc_by_loops(student: Embeddings, teacher: Embeddings, scale: float) -> Tensor:
    text, para, neg, have = student.text_BD, student.para_BD, student.neg_BKD, student.have_BK
    rows = [i for i in range(B) if student.rephrased_B[i]]
    loss = 0.0 * text.sum()
    for i in rows:
        for mine, found in ((text[i], teacher.para_BD[i]), (para[i], teacher.text_BD[i])):
            options = [mine @ found] + [mine @ neg[i][k] for k in range(K) if have[i][k]]
            loss = loss + minus_log_share(options[0], options, scale) / len(rows) / 2
    return loss


@pytest.mark.parametrize("kind", MASKS)
def test_base_is_its_formula(kind: str) -> None:
    student, scale = embeddings(0, kind), torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    assert_same(losses.base_loss(student, scale), base_by_loops(student, scale), [*student[:3], scale])


@pytest.mark.parametrize("offset", [-10.0, 2.0])
@pytest.mark.parametrize("kind", MASKS)
def test_base_of_a_model_with_a_bias_is_the_sigmoids_formula(kind: str, offset: float) -> None:
    student = embeddings(0, kind)
    scale, bias = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (7.0, offset))
    expected = sigmoid_by_loops(student, scale, bias)
    assert_same(losses.base_loss(student, scale, bias), expected, [*student[:3], scale, bias])


@pytest.mark.parametrize("kind", MASKS)
def test_distill_is_its_formula(kind: str) -> None:
    student, teacher = embeddings(0, kind), embeddings(10, kind)
    assert_same(losses.distill_loss(student, teacher), distill_by_loops(student, teacher), list(student[:3]))


@pytest.mark.parametrize("kind", MASKS)
def test_igc_is_its_formula(kind: str) -> None:
    student, scale = embeddings(0, kind), torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    assert_same(losses.igc_loss(student, scale), igc_by_loops(student, scale), [*student[:3], scale])


@pytest.mark.parametrize("layout", ["paper", "as_released"])
@pytest.mark.parametrize("kind", MASKS)
def test_tgc_is_its_formula(kind: str, layout: Any) -> None:
    student, teacher = embeddings(0, kind), embeddings(10, kind)
    found = losses.tgc_loss(student, teacher, 10.0, layout)
    assert_same(found, tgc_by_loops(student, teacher, 10.0, layout), list(student[:3]))


@pytest.mark.parametrize("kind", MASKS)
def test_pgc_is_its_formula(kind: str) -> None:
    student, teacher = embeddings(0, kind), embeddings(10, kind)
    assert bool(student.rephrased_B.any()) == (kind != "none")
    inputs = [student.text_BD, student.para_BD, student.neg_BKD]
    assert_same(losses.pgc_loss(student, teacher, 10.0), pgc_by_loops(student, teacher, 10.0), inputs)


def test_as_released_is_the_released_masks_result() -> None:
    """The released mask over flat, caption-by-caption negatives: an identity tiled K times."""
    student, teacher = embeddings(0), embeddings(10)
    logits = 10 * student.text_BD @ student.neg_BKD.reshape(B * K, D).T
    chosen = logits[torch.eye(B, dtype=torch.bool).repeat(1, K)].reshape(B, K)
    positive = 10 * (student.text_BD * teacher.text_BD).sum(dim=1, keepdim=True)
    expected = nn.functional.cross_entropy(torch.cat([positive, chosen], dim=1), torch.zeros(B, dtype=torch.int64))
    found = losses.tgc_loss(student, teacher, 10.0, "as_released")
    torch.testing.assert_close(found, expected)
    assert not torch.isclose(found, losses.tgc_loss(student, teacher, 10.0, "paper"))


def test_without_negatives_base_is_clips_own_loss() -> None:
    from open_clip import ClipLoss

    student = embeddings(0, "none")
    expected = ClipLoss()(student.image_BD, student.text_BD, torch.tensor(7.0))
    torch.testing.assert_close(losses.base_loss(student, torch.tensor(7.0)), expected)
    nothing = torch.zeros(B, 0, dtype=torch.int64)
    empty = student._replace(neg_BKD=torch.zeros(B, 0, D, dtype=torch.float64), type_BK=nothing)
    torch.testing.assert_close(losses.base_loss(empty, torch.tensor(7.0)), expected)


def test_without_negatives_the_sigmoid_base_is_siglips_own_loss() -> None:
    from open_clip.loss import SigLipLoss

    student, scale, bias = embeddings(0, "none"), torch.tensor(7.0), torch.tensor(-3.0)
    expected = SigLipLoss()(student.image_BD, student.text_BD, scale, bias)
    torch.testing.assert_close(losses.base_loss(student, scale, bias), expected)
    nothing = torch.zeros(B, 0, dtype=torch.int64)
    empty = student._replace(neg_BKD=torch.zeros(B, 0, D, dtype=torch.float64), type_BK=nothing)
    torch.testing.assert_close(losses.base_loss(empty, scale, bias), expected)


def test_the_order_of_the_batch_changes_nothing() -> None:
    student, teacher = embeddings(0, "some"), embeddings(10, "some")
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = [Embeddings(*(tensor[order] for tensor in group)) for group in (student, teacher)]
    scale = torch.tensor(7.0)
    for term in (
        lambda mine, theirs: losses.base_loss(mine, scale),
        lambda mine, theirs: losses.base_loss(mine, scale, torch.tensor(-3.0)),
        losses.distill_loss,
        lambda mine, theirs: losses.igc_loss(mine, scale),
        lambda mine, theirs: losses.tgc_loss(mine, theirs, 10.0),
        lambda mine, theirs: losses.pgc_loss(mine, theirs, 10.0),
    ):
        torch.testing.assert_close(term(student, teacher), term(*shuffled), atol=1e-12, rtol=0)


def test_another_captions_negatives_do_not_reach_igc_and_tgc() -> None:
    student, teacher, edited_row = embeddings(0), embeddings(10), 3
    neg_BKD = student.neg_BKD.detach().clone()
    neg_BKD[edited_row] = unit(K, D, seed=99)
    edited = student._replace(neg_BKD=neg_BKD)
    for anchor_BD, term in (
        (student.image_BD, lambda mine: losses.igc_loss(mine, torch.tensor(7.0))),
        (student.text_BD, lambda mine: losses.tgc_loss(mine, teacher, 10.0)),
    ):
        before, after = (torch.autograd.grad(term(each), anchor_BD)[0] for each in (student, edited))
        changed = (before != after).any(dim=1)
        assert changed.tolist() == [row == edited_row for row in range(B)]
