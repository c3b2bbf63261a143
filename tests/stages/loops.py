"""Random embeddings with gaps, in fp64, and the comparison of a term with its formula, forward and backward."""

import torch
from torch import Tensor, nn

from stages.train.losses import Embeddings

B, K, D, P, U = 5, 3, 6, 2, 3
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
    type_BK = torch.randint(0, 5, (B, K), generator=torch.Generator().manual_seed(3)).masked_fill(~have_BK, -1)
    depicted_B = have_BK[:, 0] & (torch.arange(B) != 3)
    other_BD = unit(B, D, seed=seed + 3) * depicted_B[:, None]
    rephrased_B = have_BK.any(dim=1) & (torch.arange(B) != 2)
    para_BD = unit(B, D, seed=seed + 4) * rephrased_B[:, None]
    local_BO = 20 * unit(B, 1 + K, seed=seed + 5)
    same_BPD = unit(B, P, D, seed=seed + 6)
    told_BU = have_BK[:, :U] & (torch.arange(B)[:, None] != 4)
    units = [unit(B, U, D, seed=seed + more) * told_BU[..., None] for more in (7, 8)]
    parts = (unit(B, D, seed=seed), unit(B, D, seed=seed + 1), neg_BKD, other_BD, para_BD, local_BO, same_BPD, *units)
    of_rows = (type_BK, depicted_B, rephrased_B, told_BU)
    return Embeddings(*[*(part.requires_grad_() for part in parts), *of_rows])


def minus_log_share(chosen: Tensor, options: list[Tensor], scale: Tensor | float) -> Tensor:
    return -torch.log(torch.exp(scale * chosen) / sum(torch.exp(scale * option) for option in options))


def assert_same(found: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    for mine, theirs in zip(
        torch.autograd.grad(found, inputs, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(expected, inputs, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        assert torch.isfinite(mine).all()
        torch.testing.assert_close(mine, theirs, atol=1e-11, rtol=1e-9)
