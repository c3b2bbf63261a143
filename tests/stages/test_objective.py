"""The loss terms against their formulas as scalar loops, in fp64, forward and backward; chunks, teacher, symmetries."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline import clip
from pipeline.errors import UserError
from stages import objective
from stages.batches import Batch
from stages.objective import Embeddings, Objective
from stages.train import Loss

B, K, D = 5, 3, 6
MASKS = ["all", "some", "none_in_a_row", "none"]


def unit(*shape: int, seed: int) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return nn.functional.normalize(values, dim=-1)


def mask(kind: str) -> Tensor:
    have_BK = torch.rand(B, K, generator=torch.Generator().manual_seed(7)) < 0.6
    have_BK[0, 0], have_BK[1, 1] = True, False
    if kind == "none_in_a_row":
        have_BK[2] = False
    return {"all": torch.ones(B, K, dtype=torch.bool), "none": torch.zeros(B, K, dtype=torch.bool)}.get(kind, have_BK)


def embeddings(seed: int, kind: str = "all") -> Embeddings:
    have_BK = mask(kind)
    neg_BKD = unit(B, K, D, seed=seed + 2) * have_BK[..., None]
    parts = (unit(B, D, seed=seed), unit(B, D, seed=seed + 1), neg_BKD)
    return Embeddings(*(part.requires_grad_() for part in parts), have_BK)


def minus_log_share(chosen: Tensor, options: list[Tensor], scale: Tensor | float) -> Tensor:
    return -torch.log(torch.exp(scale * chosen) / sum(torch.exp(scale * option) for option in options))


def base_by_loops(student: Embeddings, scale: Tensor) -> Tensor:
    image, text, neg, have = student
    i2t = t2i = torch.zeros((), dtype=torch.float64)
    for i in range(B):
        options = [image[i] @ text[j] for j in range(B)]
        options += [image[i] @ neg[j][k] for j in range(B) for k in range(K) if have[j][k]]
        i2t = i2t + minus_log_share(image[i] @ text[i], options, scale) / B
        t2i = t2i + minus_log_share(image[i] @ text[i], [image[j] @ text[i] for j in range(B)], scale) / B
    return (i2t + t2i) / 2


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
    image, text, neg, have = student
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


def assert_same(found: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    for mine, theirs in zip(
        torch.autograd.grad(found, inputs, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(expected, inputs, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        assert torch.isfinite(mine).all()
        torch.testing.assert_close(mine, theirs, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("kind", MASKS)
def test_base_is_its_formula(kind: str) -> None:
    student, scale = embeddings(0, kind), torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    assert_same(objective.base_loss(student, scale), base_by_loops(student, scale), [*student[:3], scale])


@pytest.mark.parametrize("kind", MASKS)
def test_distill_is_its_formula(kind: str) -> None:
    student, teacher = embeddings(0, kind), embeddings(10, kind)
    assert_same(objective.distill_loss(student, teacher), distill_by_loops(student, teacher), list(student[:3]))


@pytest.mark.parametrize("kind", MASKS)
def test_igc_is_its_formula(kind: str) -> None:
    student, scale = embeddings(0, kind), torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    assert_same(objective.igc_loss(student, scale), igc_by_loops(student, scale), [*student[:3], scale])


@pytest.mark.parametrize("layout", ["paper", "as_released"])
@pytest.mark.parametrize("kind", MASKS)
def test_tgc_is_its_formula(kind: str, layout: str) -> None:
    student, teacher = embeddings(0, kind), embeddings(10, kind)
    found = objective.tgc_loss(student, teacher, 10.0, layout)
    assert_same(found, tgc_by_loops(student, teacher, 10.0, layout), list(student[:3]))


def test_as_released_is_the_released_masks_result() -> None:
    """The released mask over flat, caption-by-caption negatives: an identity tiled K times."""
    student, teacher = embeddings(0), embeddings(10)
    logits = 10 * student.text_BD @ student.neg_BKD.reshape(B * K, D).T
    chosen = logits[torch.eye(B, dtype=torch.bool).repeat(1, K)].reshape(B, K)
    positive = 10 * (student.text_BD * teacher.text_BD).sum(dim=1, keepdim=True)
    expected = nn.functional.cross_entropy(torch.cat([positive, chosen], dim=1), torch.zeros(B, dtype=torch.int64))
    found = objective.tgc_loss(student, teacher, 10.0, "as_released")
    torch.testing.assert_close(found, expected)
    assert not torch.isclose(found, objective.tgc_loss(student, teacher, 10.0, "paper"))


def test_without_negatives_base_is_clips_own_loss() -> None:
    from open_clip import ClipLoss

    student = embeddings(0, "none")
    expected = ClipLoss()(student.image_BD, student.text_BD, torch.tensor(7.0))
    torch.testing.assert_close(objective.base_loss(student, torch.tensor(7.0)), expected)
    image_BD, text_BD, _, _ = student
    empty = Embeddings(
        image_BD, text_BD, torch.zeros(B, 0, D, dtype=torch.float64), torch.zeros(B, 0, dtype=torch.bool)
    )
    torch.testing.assert_close(objective.base_loss(empty, torch.tensor(7.0)), expected)


def test_the_order_of_the_batch_changes_nothing() -> None:
    student, teacher = embeddings(0, "some"), embeddings(10, "some")
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = [Embeddings(*(tensor[order] for tensor in group)) for group in (student, teacher)]
    scale = torch.tensor(7.0)
    for term in (
        lambda mine, theirs: objective.base_loss(mine, scale),
        objective.distill_loss,
        lambda mine, theirs: objective.igc_loss(mine, scale),
        lambda mine, theirs: objective.tgc_loss(mine, theirs, 10.0),
    ):
        torch.testing.assert_close(term(student, teacher), term(*shuffled), atol=1e-12, rtol=0)


def test_another_captions_negatives_do_not_reach_igc_and_tgc() -> None:
    student, teacher, edited_row = embeddings(0), embeddings(10), 3
    neg_BKD = student.neg_BKD.detach().clone()
    neg_BKD[edited_row] = unit(K, D, seed=99)
    edited = student._replace(neg_BKD=neg_BKD)
    for anchor_BD, term in (
        (student.image_BD, lambda mine: objective.igc_loss(mine, torch.tensor(7.0))),
        (student.text_BD, lambda mine: objective.tgc_loss(mine, teacher, 10.0)),
    ):
        before, after = (torch.autograd.grad(term(each), anchor_BD)[0] for each in (student, edited))
        changed = (before != after).any(dim=1)
        assert changed.tolist() == [row == edited_row for row in range(B)]


# -- student and teacher -----------------------------------------------------------------------------------------------


@pytest.fixture
def student(tmp_path: Path) -> nn.Module:
    arch = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }
    (tmp_path / clip.CONFIG).write_text(json.dumps({"model_cfg": arch}))
    return clip.load(str(tmp_path), seed=1).model.double()


def batch(count: int, seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    have_BK = torch.rand(count, K, generator=draw) < 0.7
    lengths = torch.randint(0, 9, (count + int(have_BK.sum()),), generator=draw).tolist()
    texts = [[49406, *torch.randint(1, 49000, (n,), generator=draw).tolist(), 49407] for n in lengths]
    return Batch(torch.randn(count, 3, 16, 16, generator=draw, dtype=torch.float64), clip.pad(texts), have_BK)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("chunks", [2, 3, 7])
@pytest.mark.parametrize("loss", [Loss(), Loss(distill=0, igc=0, tgc=0), Loss(base=0, tgc_layout="as_released")])
def test_chunks_change_neither_loss_nor_gradients(student: nn.Module, loss: Loss, chunks: int) -> None:
    learning = Objective(loss, student)
    with torch.no_grad():
        for parameter in student.parameters():  # the teacher must differ, or distillation has no gradient
            parameter.add_(0.02 * torch.randn_like(parameter))
    whole = learning.forward_backward(batch(7))
    expected = gradients(student)
    student.zero_grad()
    cut = learning.forward_backward(batch(7), chunks)
    assert cut == pytest.approx(whole, rel=1e-10, nan_ok=True)
    found = gradients(student)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-12, rtol=1e-8)


def test_a_batch_splits_with_its_negatives() -> None:
    whole = batch(7)
    parts = whole.split(3)
    assert [len(part.have_BK) for part in parts] == [3, 2, 2]
    assert torch.equal(torch.cat([part.have_BK for part in parts]), whole.have_BK)
    captions = torch.cat([part.tokens_NL[: len(part.have_BK)] for part in parts])
    negatives = torch.cat([part.tokens_NL[len(part.have_BK) :] for part in parts])
    assert torch.equal(torch.cat([captions, negatives]), whole.tokens_NL)


def test_negatives_stand_at_their_captions_place(student: nn.Module) -> None:
    given = batch(5)
    found = Objective(Loss(), student)._embed(student, given)
    texts = clip.encode_text(student, given.tokens_NL)
    torch.testing.assert_close(found.text_BD, texts[:5])
    negatives = iter(texts[5:])
    for i in range(5):
        for k in range(K):
            expected = next(negatives) if given.have_BK[i, k] else torch.zeros(8, dtype=torch.float64)
            torch.testing.assert_close(found.neg_BKD[i, k], expected)


def test_the_loss_is_the_weighted_sum_and_unused_terms_are_not_computed(student: nn.Module) -> None:
    loss = Loss(base=0.5, distill=0, igc=2, tgc=0)
    learning = Objective(loss, student)
    learning.teacher = None  # type: ignore[assignment] - must not be asked
    found = learning.forward_backward(batch(5))
    assert found["loss"] == pytest.approx(0.5 * found["base_loss"] + 2 * found["igc_loss"])
    assert math.isnan(found["distill_loss"]) and math.isnan(found["tgc_loss"])


def test_the_teacher_follows_by_the_moving_average_and_never_learns(student: nn.Module) -> None:
    learning = Objective(Loss(ema=0.9), student)
    student.register_buffer("average", torch.ones(2))
    student.register_buffer("counter", torch.tensor(1))
    learning = Objective(Loss(ema=0.9), student)
    before = {name: tensor.clone() for name, tensor in learning.teacher.state_dict().items()}
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
        student.average.add_(1.0)
        student.counter.add_(4)
    learning.forward_backward(batch(4))
    learning.update_teacher()
    for name, tensor in learning.teacher.state_dict().items():
        expected = before[name] + 4 if name == "counter" else 0.9 * before[name] + 0.1 * student.state_dict()[name]
        torch.testing.assert_close(tensor, expected)
    assert not learning.teacher.training and student.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in learning.teacher.parameters())


def test_the_logit_scale_is_clamped(student: nn.Module) -> None:
    learning = Objective(Loss(max_logit_scale=50), student)
    for raw, clamped in ((9.0, math.log(50)), (-3.0, 0.0), (2.0, 2.0)):
        with torch.no_grad():
            student.logit_scale.fill_(raw)
        learning.clamp_scale()
        assert student.logit_scale.item() == pytest.approx(clamped)


def test_a_model_with_a_logit_bias_is_refused(student: nn.Module) -> None:
    student.logit_bias = nn.Parameter(torch.zeros(()))
    with pytest.raises(UserError, match="logit bias"):
        Objective(Loss(), student)


def test_batch_norm_learns_its_statistics_once_and_then_keeps_them(tmp_path: Path) -> None:
    arch = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (tmp_path / clip.CONFIG).write_text(json.dumps({"model_cfg": arch}))
    student = clip.load(str(tmp_path), seed=1).model.double()
    given = batch(6)
    given = Batch(torch.nn.functional.interpolate(given.image_BCHW, size=32), given.tokens_NL, given.have_BK)

    fresh = Objective(Loss(), student)
    with pytest.raises(UserError, match="BatchNorm without statistics"):
        fresh.forward_backward(given, chunks=2)
    fresh.forward_backward(given)
    norm = student.visual.bn1
    assert norm.training and norm.running_mean.any()

    student.zero_grad()
    tuned = Objective(Loss(), student)
    learned = norm.running_mean.clone()
    whole, expected = tuned.forward_backward(given), gradients(student)
    assert whole["distill_loss"] == pytest.approx(0, abs=1e-20), "student and teacher see a picture alike"
    student.zero_grad()
    assert tuned.forward_backward(given, chunks=3) == pytest.approx(whole, rel=1e-9, abs=1e-20)
    assert torch.equal(norm.running_mean, learned) and student.visual.conv1.training
    for name, gradient in gradients(student).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-10, rtol=1e-7)
