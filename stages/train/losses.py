"""What a batch's embeddings are, and the terms of the DeGLA loss as plain functions of them.

Paper: Decoupled Global-Local Alignment (arXiv 2504.16801). Every term is a function of embeddings of the whole global
batch, in fp32, so its value and gradient do not depend on how the batch was cut into chunks or over processes. The
baselines' terms are in stages/train/baselines.py.

Shapes: B images and captions, K negatives per caption, P texts that say the same, U units of a caption, D embedding
width. Embeddings have L2 norm 1, except the rows of `neg_BKD`, `other_BD`, `para_BD`, `unit_BUD` and `foil_BUD` for
which there is nothing: those are zeros and take part in nothing.
"""
# ruff: noqa: N815 - shapes are suffixes of names here, also of fields

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone uses
from torch import Tensor


class Embeddings(NamedTuple):
    """What one model says about one batch.

    Attributes:
        image_BD: the images.
        text_BD: their captions.
        neg_BKD: the captions' negatives.
        other_BD: a second image of each pair, the one that its first negative is about.
        para_BD: a paraphrase of each caption.
        local_BO: logits of how well an image's patches fit the tokens of its caption and of the caption's negatives
            (`baselines.local_scores`), O = 1 + K; 0 where there is no negative, and all 0 unless a term needs them.
        same_BPD: further texts that say what the caption says; P is 0 but in joined batches.
        unit_BUD: things and relations that the caption names; U is 0 unless a term needs them.
        foil_BUD: of each of these a text that is false of the image.
        type_BK: int64, the type of each negative (its place in the recipe's `types`); -1 = there is none.
        depicted_B: bool, whether there is that second image.
        rephrased_B: bool, whether there is that paraphrase.
        told_BU: bool, which units there are.
    """

    image_BD: Tensor
    text_BD: Tensor
    neg_BKD: Tensor
    other_BD: Tensor
    para_BD: Tensor
    local_BO: Tensor
    same_BPD: Tensor
    unit_BUD: Tensor
    foil_BUD: Tensor
    type_BK: Tensor
    depicted_B: Tensor
    rephrased_B: Tensor
    told_BU: Tensor

    @property
    def have_BK(self) -> Tensor:  # noqa: N802 - shapes are suffixes of names here
        """bool, which negatives there are."""
        return self.type_BK >= 0


def base_loss(student: Embeddings, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """NegCLIP's loss: each image against all captions and all negatives, each caption against all images.

    Of a model with a logit bias it is `sigmoid_loss`.

    Mean over images, mean over captions, mean of the two::

        i2t = t2i = 0
        for i in range(B):
            options = [image[i] @ text[j] for j in range(B)]
            options += [image[i] @ neg[j][k] for j in range(B) for k in range(K) if have[j][k]]
            i2t += -log(exp(scale * image[i] @ text[i]) / sum(exp(scale * x) for x in options)) / B
            t2i += -log(exp(scale * image[i] @ text[i]) / sum(exp(scale * image[j] @ text[i]) for j in range(B))) / B
        loss = (i2t + t2i) / 2

    Source: paper, the global term; NegCLIP (Yuksekgonul et al. 2023). Without negatives it is CLIP's own loss.
    """
    if bias is not None:
        return sigmoid_loss(student, scale, bias)
    image_text_BB = scale * student.image_BD @ student.text_BD.T
    own_B = torch.arange(len(image_text_BB), device=image_text_BB.device)
    image_to_text = F.cross_entropy(
        torch.cat([image_text_BB, to_negatives(student.image_BD, student, scale)], 1), own_B
    )
    return (image_to_text + F.cross_entropy(image_text_BB.T, own_B)) / 2


def sigmoid_loss(student: Embeddings, scale: Tensor, bias: Tensor) -> Tensor:
    """SigLIP's loss: of each image with each caption and each negative of the batch, whether they belong together.

    Only an image and its own caption do; a negative is one more text that belongs to no image. Summed over the pairs,
    mean over images::

        loss = 0
        for i in range(B):
            pairs = [(image[i] @ text[j], +1 if j == i else -1) for j in range(B)]
            pairs += [(image[i] @ neg[j][k], -1) for j in range(B) for k in range(K) if have[j][k]]
            loss += sum(log(1 + exp(-sign * (scale * x + bias))) for x, sign in pairs) / B

    Source: SigLIP (arXiv 2303.15343); the negatives as in NegCLIP's loss. Without negatives it is SigLIP's own loss.
    """
    logits_BB = scale * student.image_BD @ student.text_BD.T + bias
    together_BB = 2 * torch.eye(len(logits_BB), dtype=logits_BB.dtype, device=logits_BB.device) - 1
    # -inf where there is no negative: its part of the loss, and of the gradient, is 0.
    negatives_BN = to_negatives(student.image_BD, student, scale) + bias
    pairs = torch.cat([-F.logsigmoid(together_BB * logits_BB), F.softplus(negatives_BN)], dim=1)
    return pairs.sum(dim=1).mean()


def distill_loss(student: Embeddings, teacher: Embeddings) -> Tensor:
    """Distance from the teacher: the squared differences summed over features and over all rows of the global batch.

    A sum, as the paper has it, so it grows with the batch: the paper's weight 0.005 belongs to 256 images with 4
    negatives each::

        loss = 0
        for i in range(B):
            for d in range(D):
                loss += (image[i][d] - image_t[i][d]) ** 2 + (text[i][d] - text_t[i][d]) ** 2
                loss += sum((neg[i][k][d] - neg_t[i][k][d]) ** 2 for k in range(K) if have[i][k])

    Source: paper, the self-distillation term.
    """
    pairs = zip(student[:3], teacher[:3], strict=True)
    return torch.stack([(mine - theirs).square().sum() for mine, theirs in pairs]).sum()


def igc_loss(student: Embeddings, scale: Tensor) -> Tensor:
    """Image-grounded contrast: each image's own caption against that caption's own negatives. Mean over images.

    An image whose caption has no negative adds 0::

        loss = 0
        for i in range(B):
            options = [image[i] @ text[i]] + [image[i] @ neg[i][k] for k in range(K) if have[i][k]]
            loss += -log(exp(scale * options[0]) / sum(exp(scale * x) for x in options)) / B

    Source: paper, the image-grounded term.
    """
    own = own_logits(student.image_BD, student.text_BD, student.neg_BKD, student.have_BK, scale)
    return F.cross_entropy(own, torch.zeros(len(own), dtype=torch.int64, device=own.device))


def tgc_loss(
    student: Embeddings, teacher: Embeddings, scale: float, layout: Literal["paper", "as_released"] = "paper"
) -> Tensor:
    """Text-grounded contrast: each caption against the teacher's embedding of it and its own negatives. Mean over B.

    The caption and its negatives are the student's; a caption without negatives adds 0::

        loss = 0
        for i in range(B):
            options = [text[i] @ text_t[i]] + [text[i] @ neg[i][k] for k in range(K) if have[i][k]]
            loss += -log(exp(scale * options[0]) / sum(exp(scale * x) for x in options)) / B

    `as_released` takes the negatives the released code takes: its mask counts negatives type by type while they lie
    caption by caption, so caption i meets the negatives at the flat places i, i + B, i + 2 B, ...::

        own = [divmod(t * B + i, K) for t in range(K)]
        options = [text[i] @ text_t[i]] + [text[i] @ neg[j][k] for j, k in own if have[j][k]]

    Source: paper, the text-grounded term (scale 10); the released train script for `as_released`.
    """
    neg_BKD, have_BK = student.neg_BKD, student.have_BK
    if layout == "as_released":
        count, kinds, width = neg_BKD.shape
        neg_BKD = neg_BKD.reshape(kinds, count, width).transpose(0, 1)
        have_BK = have_BK.reshape(kinds, count).T
    own = own_logits(student.text_BD, teacher.text_BD, neg_BKD, have_BK, scale)
    return F.cross_entropy(own, torch.zeros(len(own), dtype=torch.int64, device=own.device))


def pgc_loss(student: Embeddings, teacher: Embeddings, scale: float) -> Tensor:
    """Paraphrase-grounded contrast: a caption and its paraphrase find each other among the caption's own negatives.

    The text-grounded contrast with a paraphrase in place of the teacher's view of the same words, both ways: the one
    that searches and the negatives are the student's, the one that is found is the teacher's. Mean over the captions
    that bring a paraphrase, 0 without any; one without negatives adds 0::

        loss = 0
        rows = [i for i in range(B) if rephrased[i]]
        for i in rows:
            for mine, found in ((text[i], para_t[i]), (para[i], text_t[i])):
                options = [mine @ found] + [mine @ neg[i][k] for k in range(K) if have[i][k]]
                loss += -log(exp(scale * options[0]) / sum(exp(scale * x) for x in options)) / len(rows) / 2

    It asks what SugarCrepe++ asks of texts (arXiv 2406.11171). Not in the paper.
    """
    rows_B = student.rephrased_B
    sides = ((student.text_BD, teacher.para_BD), (student.para_BD, teacher.text_BD))
    both = [own_logits(mine, found, student.neg_BKD, student.have_BK, scale) for mine, found in sides]
    loss_B = torch.stack([own.logsumexp(dim=1) - own[:, 0] for own in both]).mean(dim=0)
    return (loss_B * rows_B).sum() / rows_B.sum().clamp(min=1)


def own_logits(
    anchor_BD: Tensor, positive_BD: Tensor, neg_BKD: Tensor, have_BK: Tensor, scale: Tensor | float
) -> Tensor:
    """[B, 1 + K]: each anchor with its positive, then with its own negatives; -inf where there is none."""
    positive_B1 = scale * (anchor_BD * positive_BD).sum(dim=1, keepdim=True)
    # Masked after scaling: the gradient of the scale would be 0 * inf otherwise.
    neg_BK = (scale * torch.einsum("bd,bkd->bk", anchor_BD, neg_BKD)).masked_fill(~have_BK, -torch.inf)
    return torch.cat([positive_B1, neg_BK], dim=1)


def to_negatives(anchor_AD: Tensor, student: Embeddings, scale: Tensor) -> Tensor:
    """[A, B * K]: each anchor with all negatives of the batch; -inf where there is none."""
    logits = scale * anchor_AD @ student.neg_BKD.flatten(0, 1).T
    return logits.masked_fill(~student.have_BK.flatten(), -torch.inf)
