"""The baselines' terms against their formulas as scalar loops, in fp64, forward and backward."""

import pytest
import torch
from torch import Tensor, nn

from stages.train import baselines, losses
from stages.train.losses import Embeddings
from tests.stages.loops import MASKS, B, D, K, P, U, assert_same, embeddings, unit

THRESHOLDS = torch.tensor([0.5, 0.0, 3.0, 20.0, 1.0], dtype=torch.float64)


def minus_log(chosen: Tensor, options: list[Tensor]) -> Tensor:
    return -torch.log(torch.exp(chosen) / sum(torch.exp(option) for option in options))


def zero() -> Tensor:
    return torch.zeros((), dtype=torch.float64)


def scale_of(student: Embeddings, value: float = 7.0) -> tuple[Tensor, list[Tensor]]:
    scale = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    return scale, [*student[:4], scale]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("kind", MASKS)
def test_clip_is_its_formula(kind: str, smoothing: float) -> None:
    student = embeddings(0, kind)
    scale, inputs = scale_of(student)
    image, text = student[:2]
    loss = zero()
    for i in range(B):
        texts = [scale * image[i] @ text[j] for j in range(B)]
        images = [scale * image[j] @ text[i] for j in range(B)]
        for j in range(B):
            label = smoothing / B + (1 - smoothing if j == i else 0)
            loss = loss + label * (minus_log(texts[j], texts) + minus_log(images[j], images)) / B / 2
    assert_same(baselines.clip_loss(student, scale, smoothing), loss, inputs)


@pytest.mark.parametrize("kind", MASKS)
def test_rank_is_its_formula(kind: str) -> None:
    student = embeddings(0, kind)
    scale, inputs = scale_of(student)
    image, text, neg = student[:3]
    loss = zero() * scale
    for i in range(B):
        for k in range(K):
            if student.have_BK[i][k]:
                gap = scale * image[i] @ neg[i][k] - scale * image[i] @ text[i]
                loss = loss + torch.clamp(THRESHOLDS[student.type_BK[i][k]] + gap, min=0) / (B * K)
    assert_same(baselines.rank_loss(student, scale, THRESHOLDS), loss, inputs)


@pytest.mark.parametrize("size", [20.0, 100.0])
@pytest.mark.parametrize("kind", MASKS)
def test_thresholds_are_their_formula(kind: str, size: float) -> None:
    student, scale = embeddings(0, kind), torch.tensor(size, dtype=torch.float64)
    image, text, neg = student[:3]
    own = sum(scale * image[i] @ text[i] for i in range(B)) / B
    expected = THRESHOLDS.tolist()
    for kind_number in range(5):
        theirs = [
            (scale * image[i] @ neg[i][k]).item()
            for i in range(B)
            for k in range(K)
            if student.type_BK[i][k] == kind_number
        ]
        if theirs:
            expected[kind_number] = min(max(own.item() - sum(theirs) / len(theirs), 0), 10)
    assert 10 in expected or kind == "none" or size < 100, "the bound must be met"
    found = baselines.rank_thresholds(student, scale, THRESHOLDS)
    assert found.tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert not found.requires_grad


@pytest.mark.parametrize("kind", MASKS)
def test_intra_is_its_formula(kind: str) -> None:
    student = embeddings(0, kind)
    scale, inputs = scale_of(student)
    image, text, neg = student[:3]
    loss = zero()
    for i in range(B):
        options = [scale * image[i] @ text[i]]
        options += [scale * text[i] @ neg[j][k] for j in range(B) for k in range(K) if student.have_BK[j][k]]
        loss = loss + minus_log(options[0], options) / B
    assert_same(baselines.intra_loss(student, scale), loss, inputs)


@pytest.mark.parametrize(("gamma", "smoothing"), [(2.0, 0.02), (0.0, 0.0), (1.0, 0.3)])
@pytest.mark.parametrize("kind", MASKS)
def test_focal_is_its_formula(kind: str, gamma: float, smoothing: float) -> None:
    student = embeddings(0, kind)
    scale, inputs = scale_of(student)
    image, text, neg = student[:3]
    loss = zero() * scale
    rows = [i for i in range(B) if student.have_BK[i].any()]
    for i in rows:
        options = [scale * image[i] @ text[i]]
        options += [scale * image[i] @ neg[i][k] for k in range(K) if student.have_BK[i][k]]
        for place, option in enumerate(options):
            label = smoothing / len(options) + (1 - smoothing if place == 0 else 0)
            minus_log_p = minus_log(option, options)
            loss = loss + label * (1 - torch.exp(-minus_log_p)) ** gamma * minus_log_p / len(rows)
    assert_same(baselines.focal_loss(student, scale, gamma, smoothing), loss, inputs)


@pytest.mark.parametrize(("gamma", "smoothing"), [(2.0, 0.02), (0.0, 0.0)])
@pytest.mark.parametrize("kind", MASKS)
def test_local_is_its_formula(kind: str, gamma: float, smoothing: float) -> None:
    student = embeddings(0, kind)
    local = student.local_BO
    loss = zero() * local.sum()
    rows = [i for i in range(B) if student.have_BK[i].any()]
    for i in rows:
        options = [local[i][0]] + [local[i][1 + k] for k in range(K) if student.have_BK[i][k]]
        for place, option in enumerate(options):
            label = smoothing / len(options) + (1 - smoothing if place == 0 else 0)
            minus_log_p = minus_log(option, options)
            loss = loss + label * (1 - torch.exp(-minus_log_p)) ** gamma * minus_log_p / len(rows)
    assert_same(baselines.local_loss(student, gamma, smoothing), loss, [local])


def test_local_scores_are_their_formula() -> None:
    n, p, length = 3, 5, 4
    draw = torch.Generator().manual_seed(0)
    patch, token = (
        torch.randn(n, size, D, generator=draw, dtype=torch.float64, requires_grad=True) for size in (p, length)
    )
    said = torch.tensor([[False, True, True, True], [False, True, False, False], [False, True, True, False]])
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    expected = zero()
    for i in range(n):
        options = []
        for t in range(length):
            if said[i][t]:
                like = [(token[i][t] @ patch[i][q]).item() for q in range(p)]
                like = [(x - min(like)) / (max(like) - min(like)) for x in like]
                seen = sum(x / sum(like) * patch[i][q] for q, x in enumerate(like))
                options.append(scale * (seen / seen.norm()) @ (token[i][t] / token[i][t].norm()))
        expected = expected + (i + 1) * torch.log(sum(torch.exp(x) for x in options))
    found = baselines.local_scores(patch, token, said, scale)
    assert_same((found * torch.arange(1, n + 1)).sum(), expected, [patch, token, scale])


def test_patches_that_are_all_alike_have_a_finite_score_and_gradient() -> None:
    patch = torch.ones(1, 4, D, dtype=torch.float64, requires_grad=True)
    token = torch.ones(1, 3, D, dtype=torch.float64, requires_grad=True)
    found = baselines.local_scores(patch, token, torch.tensor([[False, True, True]]), torch.tensor(5.0))
    for gradient in torch.autograd.grad(found.sum(), [patch, token]):
        assert torch.isfinite(gradient).all()


def test_focal_without_focus_and_smoothing_is_the_image_grounded_contrast() -> None:
    student, scale = embeddings(0), torch.tensor(7.0, dtype=torch.float64)
    torch.testing.assert_close(baselines.focal_loss(student, scale, 0, 0), losses.igc_loss(student, scale))


@pytest.mark.parametrize("kind", MASKS)
def test_distractor_is_its_formula(kind: str) -> None:
    student = embeddings(0, kind)
    scale, inputs = scale_of(student)
    image, text, neg, other = student[:4]
    shown = [i for i in range(B) if student.depicted_B[i]]
    assert bool(shown) == (kind != "none")
    texts = [*text, *(neg[i][0] for i in shown)]
    pictures = [*image, *(other[i] for i in shown)]
    loss = zero()
    for i in range(B):
        own = scale * image[i] @ text[i]
        loss = loss + minus_log(own, [scale * image[i] @ t for t in texts]) / B
        loss = loss + minus_log(own, [scale * p @ text[i] for p in pictures]) / B
    for i in shown:
        own = scale * other[i] @ neg[i][0]
        loss = loss + minus_log(own, [scale * other[i] @ t for t in texts]) / len(shown)
    assert_same(baselines.distractor_loss(student, scale), loss / 3, inputs)


@pytest.mark.parametrize("kind", MASKS)
def test_triplet_is_its_formula(kind: str) -> None:
    student = embeddings(0, kind)
    scale, inputs = scale_of(student)
    text, neg, other = student[1:4]
    shown = [i for i in range(B) if student.depicted_B[i]]
    loss = zero() * scale
    for i in shown:
        own = scale * other[i] @ neg[i][0]
        options = [scale * other[i] @ neg[j][0] for j in shown] + [scale * other[i] @ text[j] for j in shown]
        loss = loss + minus_log(own, options) / len(shown) / 2
        loss = loss + minus_log(own, [scale * other[j] @ neg[i][0] for j in shown]) / len(shown) / 2
    found = baselines.triplet_loss(student, scale)
    if shown:
        assert_same(found, loss, inputs)
    else:
        assert found == 0


@pytest.mark.parametrize("kind", MASKS)
def test_align_is_its_formula(kind: str) -> None:
    student = embeddings(0, kind)
    scale = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    text, para = student.text_BD, student.para_BD
    rows = [i for i in range(B) if student.rephrased_B[i]]
    assert bool(rows) == (kind != "none")
    loss = zero() * scale * (text.sum() + para.sum())
    for i in rows:
        options = [scale * para[i] @ text[j] for j in range(B)]
        loss = loss + minus_log(options[i], options) / len(rows)
    assert_same(baselines.align_loss(student, scale), loss, [text, para, scale])


@pytest.mark.parametrize("kind", MASKS)
def test_clip_over_paraphrases_is_its_formula(kind: str) -> None:
    student = embeddings(0, kind)
    scale, _ = scale_of(student)
    image, para = student.image_BD, student.para_BD
    loss = zero() * scale * (image.sum() + para.sum())
    rows = [i for i in range(B) if student.rephrased_B[i]]
    for i in rows:
        texts = [scale * image[i] @ para[j] for j in rows]
        images = [scale * image[j] @ para[i] for j in rows]
        mine = scale * image[i] @ para[i]
        loss = loss + (minus_log(mine, texts) + minus_log(mine, images)) / len(rows) / 2
    assert_same(baselines.para_clip_loss(student, scale), loss, [image, para, scale])
    all_of_them = student._replace(para_BD=student.text_BD, rephrased_B=torch.ones(B, dtype=torch.bool))
    torch.testing.assert_close(baselines.para_clip_loss(all_of_them, scale), baselines.clip_loss(student, scale))


@pytest.mark.parametrize("kind", MASKS)
def test_units_are_their_formula(kind: str) -> None:
    student = embeddings(0, kind)
    scale, _ = scale_of(student)
    image, units, foils = student.image_BD, student.unit_BUD, student.foil_BUD
    loss = zero() * scale * (image.sum() + units.sum() + foils.sum())
    for u in range(U):
        rows = [i for i in range(B) if student.told_BU[i][u]]
        assert len(rows) < B
        for i in rows:
            mine = scale * image[i] @ units[i][u]
            texts = [scale * image[i] @ units[j][u] for j in rows] + [scale * image[i] @ foils[i][u]]
            images = [scale * image[j] @ units[i][u] for j in rows]
            loss = loss + (minus_log(mine, texts) + minus_log(mine, images)) / len(rows) / 2 / U
    assert_same(baselines.unit_loss(student, scale), loss, [image, units, foils, scale])
    none = student._replace(told_BU=student.told_BU[:, :0])
    assert baselines.unit_loss(none, scale).item() == 0


@pytest.mark.parametrize("kind", MASKS)
def test_clic_is_its_formula(kind: str) -> None:
    student = embeddings(0, kind)
    scale, _ = scale_of(student)
    image, text, neg, same = student.image_BD, student.text_BD, student.neg_BKD, student.same_BPD
    loss = zero()
    told = [text, *(same[:, p] for p in range(P))]
    for words in told:
        for i in range(B):
            texts = [scale * image[i] @ words[j] for j in range(B)]
            images = [scale * image[j] @ words[i] for j in range(B)]
            own = [texts[i]] + [scale * image[i] @ neg[i][k] for k in range(K) if student.have_BK[i][k]]
            clip = (minus_log(texts[i], texts) + minus_log(images[i], images)) / 2
            loss = loss + (0.5 * clip + 0.5 * minus_log(own[0], own)) / B / len(told)
    for i in range(B):
        loss = loss + sum((text[i][d] - same[i][0][d]) ** 2 for d in range(D)) / B
    assert_same(baselines.clic_loss(student, scale), loss, [image, text, neg, same, scale])
    single = student._replace(same_BPD=same[:, :0])
    assert torch.equal(baselines.clic_loss(single, scale), baselines.clip_loss(single, scale))


def test_tic_is_its_formula() -> None:
    count = 14  # more than are looked at
    text = unit(count, D, seed=3)
    text[5] = text[2]
    text[9] = nn.functional.normalize(text[2] + 0.05 * unit(D, seed=4), dim=-1)
    text.requires_grad_()
    loss, copies = zero(), 0
    for i in range(count):
        like = [text[i] @ text[j] for j in range(count)]
        copies += sum(bool(x > 0.95) for j, x in enumerate(like) if j != i)
        like = [zero() if j == i or x > 0.95 else x for j, x in enumerate(like)]
        loss = loss + torch.log(sum(torch.exp(x) for x in sorted(like)[-10:])) / count
    assert copies >= 6
    student = embeddings(0)._replace(text_BD=text)
    assert_same(baselines.tic_loss(student), loss, [text])


def test_contrast_distill_is_its_formula() -> None:
    student, teacher, heat = embeddings(0), embeddings(10), 2.0
    scale, inputs = scale_of(student)
    mine = [[scale * student.image_BD[i] @ student.text_BD[j] / heat for j in range(B)] for i in range(B)]
    fixed = scale.detach()
    theirs = [[fixed * teacher.image_BD[i] @ teacher.text_BD[j] / heat for j in range(B)] for i in range(B)]
    loss = zero()
    for i in range(B):
        for j in range(B):
            for at, options in (((i, j), [(i, x) for x in range(B)]), ((j, i), [(x, i) for x in range(B)])):
                of = lambda table, place: table[place[0]][place[1]]  # noqa: E731
                p = torch.exp(-minus_log(of(theirs, at), [of(theirs, o) for o in options])).detach()
                loss = loss + heat**2 * p * minus_log(of(mine, at), [of(mine, o) for o in options]) / B
    assert_same(baselines.contrast_distill_loss(student, teacher, scale, heat), loss, inputs)


def test_fisher_is_its_formula() -> None:
    draw = torch.Generator().manual_seed(0)
    shapes = ((3, 2), (4,), (2,))
    weights, start, gradients = (
        [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes] for _ in range(3)
    )
    gradients[2].zero_()
    for weight in weights:
        weight.requires_grad_()
    importance = baselines.fisher_importance(gradients)
    assert importance[0].mean() == pytest.approx(1) and not importance[2].any()
    loss = zero()
    for tensor, origin, gradient in zip(weights, start, gradients, strict=True):
        squares = [g**2 for g in gradient.flatten()]
        mean = sum(squares) / len(squares)
        for w, s, g in zip(tensor.flatten(), origin.flatten(), squares, strict=True):
            loss = loss + (g / mean if mean else 0) * (w - s) ** 2
    assert_same(baselines.fisher_loss(weights, start, importance), loss, weights)


def test_the_order_of_the_batch_changes_nothing() -> None:
    student, teacher = embeddings(0, "some"), embeddings(10, "some")
    order, scale = torch.tensor([3, 0, 4, 1, 2]), torch.tensor(7.0, dtype=torch.float64)
    shuffled = [Embeddings(*(tensor[order] for tensor in group)) for group in (student, teacher)]
    for term in (
        lambda mine, theirs: baselines.clip_loss(mine, scale),
        lambda mine, theirs: baselines.rank_loss(mine, scale, THRESHOLDS),
        lambda mine, theirs: baselines.rank_thresholds(mine, scale, THRESHOLDS),
        lambda mine, theirs: baselines.intra_loss(mine, scale),
        lambda mine, theirs: baselines.focal_loss(mine, scale, 2, 0.02),
        lambda mine, theirs: baselines.local_loss(mine, 2, 0.02),
        lambda mine, theirs: baselines.distractor_loss(mine, scale),
        lambda mine, theirs: baselines.triplet_loss(mine, scale),
        lambda mine, theirs: baselines.align_loss(mine, scale),
        lambda mine, theirs: baselines.para_clip_loss(mine, scale),
        lambda mine, theirs: baselines.unit_loss(mine, scale),
        lambda mine, theirs: baselines.clic_loss(mine, scale),
        lambda mine, theirs: baselines.tic_loss(mine),
        lambda mine, theirs: baselines.contrast_distill_loss(mine, theirs, scale, 2),
    ):
        torch.testing.assert_close(term(student, teacher), term(*shuffled), atol=1e-12, rtol=0)


def test_without_negatives_every_term_is_finite() -> None:
    student, scale = embeddings(0, "none"), torch.tensor(7.0, dtype=torch.float64)
    nothing = torch.zeros(B, 0, dtype=torch.int64)
    empty = student._replace(neg_BKD=torch.zeros(B, 0, D, dtype=torch.float64), type_BK=nothing)
    assert baselines.rank_loss(empty, scale, THRESHOLDS) == 0
    assert baselines.rank_thresholds(empty, scale, THRESHOLDS).tolist() == THRESHOLDS.tolist()
    assert baselines.focal_loss(empty, scale, 2, 0.02) == 0
    assert baselines.triplet_loss(empty, scale) == 0
    assert baselines.intra_loss(empty, scale) == 0
    torch.testing.assert_close(baselines.distractor_loss(empty, scale), baselines.clip_loss(empty, scale) * 2 / 3)
