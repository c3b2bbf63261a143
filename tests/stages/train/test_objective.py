"""Student and teacher: chunks of a batch change nothing, the teacher follows, the parts of a batch stay together."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline import clip
from pipeline.errors import UserError
from stages.train.batches import Batch
from stages.train.config import Loss
from stages.train.objective import Objective
from stages.train.terms import TERMS

K, P, U = 3, 2, 2
NONE = {"base": 0, "distill": 0, "igc": 0, "tgc": 0}
LOSSES = {
    "degla": Loss(),
    "as_released": Loss(base=0, tgc_layout="as_released"),
    **{term: Loss(**{**NONE, term: 1}) for term in TERMS if term != "fisher"},
    "gift": Loss(**{**NONE, "base": 1, "clip": 0.5, "contrast_distill": 1, "fisher": 1, "ema": 1}),
}


ARCH = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


def loaded(folder: Path, **more: Any) -> nn.Module:
    folder.mkdir(exist_ok=True)
    (folder / clip.CONFIG).write_text(json.dumps({"model_cfg": ARCH | more}))
    return clip.load(str(folder), seed=1).model.double()


@pytest.fixture
def student(tmp_path: Path) -> nn.Module:
    return loaded(tmp_path)


def batch(count: int, seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    have_BK = torch.rand(count, K, generator=draw) < 0.7
    rephrased_B = torch.rand(count, generator=draw) < 0.6
    same_BP = torch.ones(count, P, dtype=torch.bool)
    told_BU = torch.rand(count, U, generator=torch.Generator().manual_seed(seed)) < 0.7
    further = int(have_BK.sum() + rephrased_B.sum() + 2 * told_BU.sum()) + same_BP.numel()
    lengths = torch.randint(0, 9, (count + further,), generator=draw).tolist()
    texts = [[49406, *torch.randint(1, 49000, (n,), generator=draw).tolist(), 49407] for n in lengths]
    type_BK = torch.randint(0, 5, (count, K), generator=draw).masked_fill(~have_BK, -1)
    depicted_B = have_BK[:, 0] & (torch.arange(count) != 1)
    pictures = torch.randn(count + int(depicted_B.sum()), 3, 16, 16, generator=draw, dtype=torch.float64)
    of_pairs = {"same_BP": same_BP, "told_BU": told_BU}
    return Batch(pictures[:count], clip.pad(texts), type_BK, pictures[count:], depicted_B, rephrased_B, **of_pairs)


def learned(learning: Objective, parts: list[Batch]) -> dict[str, float]:
    """The losses of a backward pass."""
    return {name: value.item() for name, value in learning.forward_backward(parts).items()}


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("chunks", [2, 3, 7])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_chunks_change_neither_loss_nor_gradients(student: nn.Module, loss: Loss, chunks: int) -> None:
    assert_chunks_change_nothing(student, loss, chunks)


@pytest.mark.parametrize("chunks", [2, 7])
@pytest.mark.parametrize("name", ["degla", "base", "gift"])
def test_nor_do_they_for_a_model_with_a_bias(tmp_path: Path, name: str, chunks: int) -> None:
    student = loaded(tmp_path, init_logit_bias=-2.0)
    assert_chunks_change_nothing(student, LOSSES[name], chunks)
    assert student.logit_bias.grad.abs() > 1e-3


def assert_chunks_change_nothing(student: nn.Module, loss: Loss, chunks: int) -> None:
    learning = Objective(loss, student)
    with torch.no_grad():
        for parameter in student.parameters():  # the teacher must differ, or distillation has no gradient
            parameter.add_(0.02 * torch.randn_like(parameter))
    whole = learned(learning, [batch(7)])
    expected = gradients(student)
    student.zero_grad()
    cut = learned(learning, batch(7).split(chunks))
    assert cut == pytest.approx(whole, rel=1e-10)
    found = gradients(student)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-12, rtol=1e-8)


def test_a_batch_splits_with_its_negatives() -> None:
    whole = batch(7)
    parts = whole.split(3)
    assert [len(part.type_BK) for part in parts] == [3, 2, 2]
    for name in ("type_BK", "depicted_B", "rephrased_B", "same_BP", "told_BU", "image_BCHW", "other_MCHW"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    assert all(len(part.other_MCHW) == part.depicted_B.sum() for part in parts)
    captions = torch.cat([part.tokens_NL[: len(part.type_BK)] for part in parts])
    further = torch.cat([part.tokens_NL[len(part.type_BK) :] for part in parts])
    assert torch.equal(torch.cat([captions, further]), whole.tokens_NL)


def test_negatives_and_paraphrases_stand_at_their_captions_place(student: nn.Module) -> None:
    given = batch(5)
    found = Objective(Loss(), student).embed(given)
    texts = clip.encode_text(student, given.tokens_NL)
    torch.testing.assert_close(found.text_BD, texts[:5])
    further, none = iter(texts[5:]), torch.zeros(8, dtype=torch.float64)
    assert given.rephrased_B.any() and not given.rephrased_B.all()
    for i in range(5):
        for k in range(K):
            torch.testing.assert_close(found.neg_BKD[i, k], next(further) if given.have_BK[i, k] else none)
        torch.testing.assert_close(found.para_BD[i], next(further) if given.rephrased_B[i] else none)
        for p in range(P):
            torch.testing.assert_close(found.same_BPD[i, p], next(further))
        for units_BUD in (found.unit_BUD, found.foil_BUD):
            for u in range(U):
                torch.testing.assert_close(units_BUD[i, u], next(further) if given.told_BU[i, u] else none)
    assert next(further, None) is None


def test_the_loss_is_the_weighted_sum_and_unused_terms_are_not_computed(student: nn.Module) -> None:
    loss = Loss(base=0.5, distill=0, igc=2, tgc=0)
    learning = Objective(loss, student)
    learning.teacher = None  # must not be asked
    found = learned(learning, [batch(5)])
    assert found["loss"] == pytest.approx(0.5 * found["base_loss"] + 2 * found["igc_loss"])
    assert found.keys() == {"loss", "base_loss", "igc_loss"}


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
    learning.forward_backward([batch(4)])
    still = {name: tensor.clone() for name, tensor in learning.teacher.state_dict().items()}
    learning.update_teacher(torch.tensor(False))
    assert all(torch.equal(tensor, still[name]) for name, tensor in learning.teacher.state_dict().items())
    learning.update_teacher(torch.tensor(True))
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
        learning.after_step(torch.tensor(True))
        assert student.logit_scale.item() == pytest.approx(clamped)


def test_the_scale_of_a_model_with_a_bias_is_not_clamped(tmp_path: Path) -> None:
    student = loaded(tmp_path, init_logit_bias=-2.0, init_logit_scale=math.log(117.0))  # as SigLIP's own weights
    learning = Objective(Loss(max_logit_scale=100), student)
    learning.after_step(torch.tensor(True))
    assert learning.scale == pytest.approx(117.0)


def test_batch_norm_learns_its_statistics_once_and_then_keeps_them(tmp_path: Path) -> None:
    arch = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (tmp_path / clip.CONFIG).write_text(json.dumps({"model_cfg": arch}))
    student = clip.load(str(tmp_path), seed=1).model.double()
    given, none = replace(batch(6), depicted_B=torch.zeros(6, dtype=torch.bool)), torch.zeros(0, 3, 32, 32)
    given = replace(given, image_BCHW=torch.nn.functional.interpolate(given.image_BCHW, size=32), other_MCHW=none)

    fresh = Objective(Loss(), student)
    with pytest.raises(UserError, match="BatchNorm without statistics"):
        fresh.forward_backward(given.split(2))
    fresh.forward_backward([given])
    norm = student.visual.bn1
    assert norm.training and norm.running_mean.any()

    student.zero_grad()
    tuned = Objective(Loss(), student)
    kept = norm.running_mean.clone()
    whole, expected = learned(tuned, [given]), gradients(student)
    assert whole["distill_loss"] == pytest.approx(0, abs=1e-20), "student and teacher see an image alike"
    student.zero_grad()
    assert learned(tuned, given.split(3)) == pytest.approx(whole, rel=1e-9, abs=1e-20)
    assert torch.equal(norm.running_mean, kept) and student.visual.conv1.training
    for name, gradient in gradients(student).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-10, rtol=1e-7)
