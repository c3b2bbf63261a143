"""How good a student is on the dataset's val split: the only thing by which an epoch is chosen, never a benchmark."""

import torch

from pipeline.clip import Clip, tuning
from stages.train.batches import Batches
from stages.train.objective import Objective
from stages.train.pictures import Images
from stages.train.rows import Rows


def batches(rows: Rows, images: Images, batch: int) -> Batches:
    """The held-out rows in batches of different images, each caption with all its negatives."""
    size = min(batch, int(rows.image_group.max()) + 1)
    return Batches(rows, images, size, rows.have.shape[1], epochs=1, seed=0)


def score(objective: Objective, held_out: Batches, model: Clip, device: str) -> dict[str, float]:
    """Shares of right answers of the student.

    Returns:
        own: negatives that an image likes less than its caption. retrieval: images that find their caption in the
        batch, and captions their image. score: the mean of the two, so that neither is bought with the other.
    """
    own: list[torch.Tensor] = []
    retrieval: list[torch.Tensor] = []
    with tuning.evaluating(objective.student), torch.inference_mode():
        for index in range(len(held_out)):
            found = objective.embed(held_out[index].on(device, model))
            logits_BB = found.image_BD @ found.text_BD.T
            margin_BK = logits_BB.diag()[:, None] - torch.einsum("bd,bkd->bk", found.image_BD, found.neg_BKD)
            own.append(margin_BK[found.have_BK] > 0)
            place_B = torch.arange(len(logits_BB), device=logits_BB.device)
            retrieval += [logits_BB.argmax(dim=1) == place_B, logits_BB.argmax(dim=0) == place_B]
    right = {"own": torch.cat(own), "retrieval": torch.cat(retrieval)}
    means = {name: float(each.float().mean()) for name, each in right.items() if len(each)}
    return means | {"score": sum(means.values()) / len(means)}
