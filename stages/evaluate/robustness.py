"""How much of a score survives an attack on the image: projected gradient descent in a small l-infinity ball.

The attack is TeCoA's (arXiv 2212.07016; attacks.py of cvlab-columbia/ZSRobust4FoundationModel): a random start in the
ball, steps along the sign of the gradient of the cross-entropy over the texts at the model's own temperature, each
step projected back into the ball and into valid pixels. The radius of 1/255 is the paper's, five steps of 1/255 are
the defaults of its test script. It works on the pixels that the model sees, after resizing and before normalisation.
Where TeCoA counts the last step, here the worst image met on the way counts, the untouched one among them, so an
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

from pipeline import clip, tables
from pipeline.artifact import digest
from pipeline.schema import SCORES
from stages.benchmarks.robust import BENCHMARK, SIDES
from stages.benchmarks.rows import Row, Subset
from stages.evaluate.config import Robustness
from stages.evaluate.encoder import Encoder
from stages.evaluate.rows import WRONG_KEPT, Floats, Leaked, prompted, table_row

if TYPE_CHECKING:
    from torch import Tensor


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
    attacked = [subset for subset in subsets if subset.rule in ("choice", "classify")]
    found: list[dict[str, Any]] = []
    for done, subset in enumerate(attacked):
        encoder.progress("attacked subsets", done, len(attacked))
        rows = choose(subset, settings.rows, seed)
        identity = digest([subset.protocol, [row.row_id for row in rows], settings.identity(), seed, model])
        kept = encoder.work / "attacked" / identity if encoder.work else None
        if kept and tables.files(kept):
            found += tables.read(kept).to_pylist()
            continue
        made = _both(encoder, subset, rows, settings, model, flagged, seed) if rows else []
        if kept:
            tables.write(tables.part(kept, 0), made, SCORES)
        found += made
    encoder.progress("attacked subsets", len(attacked), len(attacked))
    return found


def choose(subset: Subset, most: int, seed: int) -> tuple[Row, ...]:
    """At most so many of a subset's rows whose image is there, in their order."""
    there = [row for row in subset.rows if row.image and row.image.path.is_file()]
    rng = np.random.default_rng([seed, zlib.crc32(f"{subset.benchmark}.{subset.name}".encode())])
    return tuple(there[index] for index in sorted(rng.permutation(len(there))[:most]))


def attack(
    encoder: Encoder, rows: Sequence[Row], option_BKD: Floats, settings: Robustness, seed: int
) -> tuple[Floats, Floats]:
    """Similarities of each row to its options, [B, K], the right one first: untouched, and at the worst point met."""
    import torch

    model = encoder.clip
    model.model.requires_grad_(False)
    all_BKD = torch.from_numpy(option_BKD).to(encoder.device)
    crop = clip.crop(model)
    clean_BCHW = torch.stack([crop(row.image()) for row in rows if row.image]).float().to(encoder.device)
    scale = model.model.logit_scale.exp()  # type: ignore[operator]

    def similar(image_BCHW: "Tensor") -> "Tensor":
        return torch.einsum("bd,bkd->bk", clip.encode_image(model.model, clip.normalise(model, image_BCHW)), all_BKD)

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


def options(encoder: Encoder, subset: Subset, rows: Sequence[Row]) -> tuple[Floats, NDArray[np.int64]]:
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
    option_OD, own_BK = options(encoder, subset, rows)
    found = []
    for start in range(0, len(rows), encoder.batch):
        batch = slice(start, start + encoder.batch)
        found.append(attack(encoder, rows[batch], option_OD[own_BK[batch]], settings, seed + start))
    attack_id = f"linf={settings.eps:g}/255;step={settings.step:g}/255;steps={settings.steps}"
    made = []
    for side, source, batches in zip(
        SIDES, (subset.digest, f"{subset.digest};{attack_id}"), zip(*found, strict=True), strict=True
    ):
        half = replace(subset, benchmark=BENCHMARK, name=f"{subset.benchmark}.{subset.name}.{side}", digest=source)
        for row, (right, *wrong) in zip(rows, np.concatenate(batches).tolist(), strict=True):
            kept = wrong[: len(row.texts) - 1] if row.texts else sorted(wrong, reverse=True)[:WRONG_KEPT]
            made.append(table_row(half, row, [right, *kept], model, leaked))
    return made
