"""How much of a score survives an attack on the picture: projected gradient descent in a small l-infinity ball.

The attack is TeCoA's (arXiv 2212.07016; attacks.py of cvlab-columbia/ZSRobust4FoundationModel): a random start in the
ball, steps along the sign of the gradient of the cross-entropy over the texts at the model's own temperature, each
step projected back into the ball and into valid pixels. The radius of 1/255 is the paper's, five steps of 1/255 are
the defaults of its test script. It works on the pixels that the model sees, after resizing and before normalisation.
Where TeCoA counts the last step, here the worst picture met on the way counts, the untouched one among them, so an
attack never helps.

Every chosen row becomes two rows of the scores table: `<benchmark>.<subset>.clean` and `.attacked`, both of `robust`.

Shapes: B rows of a batch · K options of a row · C, H, W pixels · D embedding width.
"""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline import tables
from pipeline.artifact import digest
from pipeline.config import Config
from pipeline.schema import SCORES
from stages.benchmarks.loaders import Row, Subset
from stages.evaluate.encoder import Encoder
from stages.evaluate.scoring import WRONG_KEPT, Leaked, prompted, table_row

if TYPE_CHECKING:
    from torch import Tensor

BENCHMARK = "robust"
SIDES = ("clean", "attacked")

Floats = NDArray[np.float32]


class Robustness(Config):
    """Accuracy under attack; off unless `rows` is set."""

    rows: int = Field(0, ge=0, description="most rows attacked per subset of pairwise and zero-shot sets; 0 = none")
    eps: float = Field(1.0, ge=0, le=255, description="largest change of a pixel, of 255")
    step: float = Field(1.0, gt=0, le=255, description="change of a pixel per step, of 255")
    steps: int = Field(5, ge=1, description="gradient steps")


def score(
    encoder: Encoder, subsets: Sequence[Subset], settings: Robustness, model: str, leaked: Leaked, seed: int
) -> list[dict[str, Any]]:
    """Rows of the scores table for one model, clean and attacked; finished subsets below `encoder.work` are kept.

    Args:
        encoder: the model.
        subsets: those of the rules `choice` and `classify` are attacked.
        settings: of the attack.
        model: what the rows call the model.
        leaked: rows that overlap with training data.
        seed: of the choice of rows and of the attack's starts, the same for every model.
    """
    flagged = {(BENCHMARK, f"{one}.{name}.{side}", row_id) for one, name, row_id in leaked for side in SIDES}
    asked = [subset for subset in subsets if subset.rule in ("choice", "classify")]
    found: list[dict[str, Any]] = []
    for done, subset in enumerate(asked):
        encoder.progress("attacked subsets", done, len(asked))
        rows = chosen(subset, settings.rows, seed)
        identity = digest([subset.protocol, [row.row_id for row in rows], settings.identity(), seed, model])
        kept = encoder.work / "attacked" / identity if encoder.work else None
        if kept and tables.files(kept):
            found += tables.read(kept).to_pylist()
            continue
        made = _both(encoder, subset, rows, settings, model, flagged, seed) if rows else []
        if kept:
            tables.write(tables.part(kept, 0), made, SCORES)
        found += made
    encoder.progress("attacked subsets", len(asked), len(asked))
    return found


def chosen(subset: Subset, most: int, seed: int) -> tuple[Row, ...]:
    """At most so many of a subset's rows whose picture is there, in their order."""
    there = [row for row in subset.rows if row.picture and row.picture.path.is_file()]
    rng = np.random.default_rng([seed, zlib.crc32(f"{subset.benchmark}.{subset.name}".encode())])
    return tuple(there[index] for index in sorted(rng.permutation(len(there))[:most]))


def attack(
    encoder: Encoder, rows: Sequence[Row], option_BKD: Floats, settings: Robustness, seed: int
) -> tuple[Floats, Floats]:
    """Similarities of each row to its options, [B, K], the right one first: untouched, and at the worst point met."""
    import torch

    from pipeline.clip import crop, encode_image, normalise

    clip = encoder.clip
    clip.model.requires_grad_(False)
    options = torch.from_numpy(option_BKD).to(encoder.device)
    cut = crop(clip)
    clean_BCHW = torch.stack([cut(row.picture()) for row in rows if row.picture]).float().to(encoder.device)
    scale = clip.model.logit_scale.exp()  # type: ignore[operator]

    def similar(image_BCHW: "Tensor") -> "Tensor":
        return torch.einsum("bd,bkd->bk", encode_image(clip.model, normalise(clip, image_BCHW)), options)

    untouched_BK = similar(clean_BCHW.clone().requires_grad_(True)).detach()  # with a gradient: the same kernels
    worst_BK = untouched_BK.clone()
    noise_BCHW = torch.rand(clean_BCHW.shape, generator=torch.Generator().manual_seed(seed)).to(encoder.device)
    image_BCHW = (clean_BCHW + settings.eps * (2 * noise_BCHW - 1)).clamp(0, 255)
    right_B = torch.zeros(len(rows), dtype=torch.long, device=encoder.device)
    for step in range(settings.steps + 1):
        image_BCHW.requires_grad_(True)
        similarity_BK = similar(image_BCHW)
        found_BK = similarity_BK.detach()
        worst_BK = torch.where((_margin(found_BK) < _margin(worst_BK))[:, None], found_BK, worst_BK)
        if step == settings.steps:
            break
        loss = torch.nn.functional.cross_entropy(scale * similarity_BK, right_B, reduction="sum")
        (gradient_BCHW,) = torch.autograd.grad(loss, image_BCHW)
        moved_BCHW = image_BCHW.detach() + settings.step * gradient_BCHW.sign()
        image_BCHW = clean_BCHW + (moved_BCHW - clean_BCHW).clamp(-settings.eps, settings.eps)
        image_BCHW = image_BCHW.clamp(0, 255)
    return untouched_BK.cpu().numpy(), worst_BK.cpu().numpy()


def _margin(similarity_BK: "Tensor") -> "Tensor":
    return similarity_BK[:, 0] - similarity_BK[:, 1:].amax(1)


def _options(encoder: Encoder, subset: Subset, rows: Sequence[Row]) -> tuple[Floats, NDArray[np.int64]]:
    """Embeddings of all options, [O, D], and which are each row's, [B, K], the right one first.

    Where a row has fewer than others, its last one fills up.
    """
    if subset.rule == "choice":
        at, option_OD = encoder.texts([text for row in rows for text in row.texts])
        most = max(len(row.texts) for row in rows)
        return option_OD, np.array(
            [[at[t] for t in (*row.texts, *row.texts[-1:] * (most - len(row.texts)))] for row in rows]
        )
    at, text_ND = encoder.texts([text for prompt in subset.prompts for text in prompt])
    option_OD = np.stack([prompted(text_ND[[at[text] for text in prompt]]) for prompt in subset.prompts])
    return option_OD, np.array(
        [[row.right[0], *(o for o in range(len(option_OD)) if o != row.right[0])] for row in rows]
    )


def _both(
    encoder: Encoder,
    subset: Subset,
    rows: Sequence[Row],
    settings: Robustness,
    model: str,
    leaked: Leaked,
    seed: int,
) -> list[dict[str, Any]]:
    option_OD, own_BK = _options(encoder, subset, rows)
    found = []
    for start in range(0, len(rows), encoder.batch):
        batch = slice(start, start + encoder.batch)
        found.append(attack(encoder, rows[batch], option_OD[own_BK[batch]], settings, seed + start))
    said = f"linf={settings.eps:g}/255;step={settings.step:g}/255;steps={settings.steps}"
    made = []
    for side, asked_of, batches in zip(
        SIDES, (subset.digest, f"{subset.digest};{said}"), zip(*found, strict=True), strict=True
    ):
        asked = replace(subset, benchmark=BENCHMARK, name=f"{subset.benchmark}.{subset.name}.{side}", digest=asked_of)
        for row, (right, *wrong) in zip(rows, np.concatenate(batches).tolist(), strict=True):
            kept = wrong[: len(row.texts) - 1] if row.texts else sorted(wrong, reverse=True)[:WRONG_KEPT]
            made.append(table_row(asked, row, [right, *kept], model, leaked))
    return made
