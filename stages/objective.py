"""The DeGLA objective: student, teacher, the four loss terms, and the moving average that makes the teacher.

Paper: Decoupled Global-Local Alignment (arXiv 2504.16801). Every term is a plain function of embeddings of the whole
global batch, in fp32, so its value and gradient do not depend on how the batch was cut into chunks or over processes.

Shapes: B images and captions, K negatives per caption, D embedding width, N texts = B captions + the negatives there
are, L tokens. All embeddings have L2 norm 1, except the rows of `neg_BKD` where `have_BK` is False: those are zeros
and take part in nothing.
"""
# ruff: noqa: N815 - shapes are suffixes of names here, also of fields

import copy
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone uses
from torch import Tensor, nn

from pipeline import clip
from pipeline.errors import UserError

if TYPE_CHECKING:
    from stages.batches import Batch
    from stages.train import Loss


class Embeddings(NamedTuple):
    """What one model says about one batch."""

    image_BD: Tensor
    text_BD: Tensor
    neg_BKD: Tensor
    have_BK: Tensor


# -- the terms ---------------------------------------------------------------------------------------------------------


def base_loss(student: Embeddings, scale: Tensor) -> Tensor:
    """NegCLIP's loss: each image against all captions and all negatives, each caption against all images.

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
    image_BD, text_BD, neg_BKD, have_BK = student
    own_B = torch.arange(len(image_BD), device=image_BD.device)
    image_text_BB = scale * image_BD @ text_BD.T
    image_neg_BM = (scale * image_BD @ neg_BKD.flatten(0, 1).T).masked_fill(~have_BK.flatten(), -torch.inf)
    image_to_text = F.cross_entropy(torch.cat([image_text_BB, image_neg_BM], dim=1), own_B)
    return (image_to_text + F.cross_entropy(image_text_BB.T, own_B)) / 2


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
    image_BD, text_BD, neg_BKD, have_BK = student
    return _own_contrast(image_BD, text_BD, neg_BKD, have_BK, scale)


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
    return _own_contrast(student.text_BD, teacher.text_BD, neg_BKD, have_BK, scale)


def _own_contrast(
    anchor_BD: Tensor, positive_BD: Tensor, neg_BKD: Tensor, have_BK: Tensor, scale: Tensor | float
) -> Tensor:
    positive_B1 = scale * (anchor_BD * positive_BD).sum(dim=1, keepdim=True)
    # Masked after scaling: the gradient of the scale would be 0 * inf otherwise.
    neg_BK = (scale * torch.einsum("bd,bkd->bk", anchor_BD, neg_BKD)).masked_fill(~have_BK, -torch.inf)
    first_B = torch.zeros(len(anchor_BD), dtype=torch.int64, device=anchor_BD.device)
    return F.cross_entropy(torch.cat([positive_B1, neg_BK], dim=1), first_B)


# -- student and teacher -----------------------------------------------------------------------------------------------


class Objective:
    """The student that learns, the teacher that follows it, and the loss between them.

    Args:
        config: weights and constants.
        student: an open_clip model on its device, fp32; trained in place.
        precision: of the encoders; the loss is always fp32.

    Raises:
        UserError: the model has a logit bias (SigLIP), which a softmax over the batch cannot use.

    Attributes:
        freshly_normed: a BatchNorm of the student still learns its statistics, from each chunk as a whole.
    """

    def __init__(self, config: "Loss", student: nn.Module, precision: Literal["fp32", "bf16", "fp16"] = "fp32") -> None:
        if getattr(student, "logit_bias", None) is not None:
            raise UserError(
                "train", "the model has a logit bias (SigLIP)", "a CLIP with a softmax loss", "set train.model to one"
            )
        self.config, self.student = config, student
        self.teacher = copy.deepcopy(student).eval().requires_grad_(False)
        self.dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        student.train()
        self.freshly_normed = _settle_batch_norm(student)
        pairs = [(self.teacher.state_dict()[name], tensor) for name, tensor in student.state_dict().items()]
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    def forward_backward(
        self, batch: "Batch", chunks: int = 1, scaled: Callable[[Tensor], Tensor] = lambda loss: loss
    ) -> dict[str, float]:
        """Add the gradients of the loss to the student's parameters.

        Args:
            batch: this process's share of the global batch, on the student's device.
            chunks: pieces the batch is encoded in. More than one bounds the memory to one piece and costs a second
                forward pass (gradient caching, Gao et al. 2021); loss and gradients stay those of the whole batch.
            scaled: what multiplies the loss before it is differentiated (a loss scaler).

        Returns:
            "loss" and each raw term; NaN for a term of weight 0, which is not computed.
        """
        if chunks > 1 and self.freshly_normed:
            raise UserError(
                "train",
                f"BatchNorm without statistics would see {chunks} chunks of the batch, not the batch",
                "weights to start from, or whole batches",
                "--set train.accumulate=1, or another train.model",
            )
        teacher = self._teach(batch)
        if chunks == 1:
            losses = self.losses(self._embed(self.student, batch), teacher)
            scaled(losses["loss"]).backward()  # type: ignore[no-untyped-call]
            return {name: loss.item() for name, loss in losses.items()}
        parts = batch.split(chunks)
        with torch.no_grad():
            pieces = [self._embed(self.student, part) for part in parts]
        student = Embeddings(*map(torch.cat, zip(*pieces, strict=True)))
        leaves = [tensor.requires_grad_() for tensor in student[:3]]
        losses = self.losses(student, teacher)
        scaled(losses["loss"]).backward()  # type: ignore[no-untyped-call]
        sizes = [len(part.have_BK) for part in parts]
        gradients = [torch.split(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad, sizes) for leaf in leaves]
        for part, *of_part in zip(parts, *gradients, strict=True):
            torch.autograd.backward(self._embed(self.student, part)[:3], of_part)
        return {name: loss.item() for name, loss in losses.items()}

    def losses(self, student: Embeddings, teacher: Embeddings | None) -> dict[str, Tensor]:
        """ "loss", the weighted sum, and each raw term by the name of its column in the steps table."""
        config = self.config
        scale: Tensor = self.student.logit_scale.exp()  # type: ignore[operator, assignment]
        terms: dict[str, tuple[float, Callable[[], Tensor]]] = {
            "base_loss": (config.base, lambda: base_loss(student, scale)),
            "distill_loss": (config.distill, lambda: distill_loss(student, _there(teacher))),
            "igc_loss": (config.igc, lambda: igc_loss(student, scale)),
            "tgc_loss": (
                config.tgc,
                lambda: tgc_loss(student, _there(teacher), config.tgc_scale, config.tgc_layout),
            ),
        }
        unused = torch.full_like(scale, torch.nan)
        raw = {name: term() if weight else unused for name, (weight, term) in terms.items()}
        total = torch.stack([weight * raw[name] for name, (weight, _) in terms.items() if weight]).sum()
        return {"loss": total, **raw}

    @property
    def scale(self) -> float:
        """The student's logit scale."""
        return float(self.student.logit_scale.detach().exp())  # type: ignore[operator]

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Keep the learned logit scale in [1, max_logit_scale], after the optimizer's step."""
        scale: Any = self.student.logit_scale
        scale.clamp_(0, math.log(self.config.max_logit_scale))

    @torch.no_grad()
    def update_teacher(self) -> None:
        """teacher <- ema * teacher + (1 - ema) * student, over parameters and buffers; counters are copied."""
        teacher, student = zip(*self._averaged, strict=True)
        torch._foreach_lerp_(teacher, student, 1 - self.config.ema)
        for theirs, mine in self._copied:
            theirs.copy_(mine)

    def _teach(self, batch: "Batch") -> Embeddings | None:
        if not self.config.distill and not self.config.tgc:
            return None
        with torch.inference_mode():
            found = self._embed(self.teacher, batch)
        # An inference tensor cannot be saved for a backward pass; its clone outside of inference mode can.
        return Embeddings(*(tensor.clone() for tensor in found))

    def _embed(self, model: nn.Module, batch: "Batch") -> Embeddings:
        device = batch.have_BK.device.type
        with torch.autocast(device, dtype=self.dtype, enabled=self.dtype is not None):
            image_BD = clip.encode_image(model, batch.image_BCHW)
            text_ND = clip.encode_text(model, batch.tokens_NL)
        count, kinds = batch.have_BK.shape
        none_BKD = text_ND.new_zeros(count, kinds, text_ND.shape[1])
        neg_BKD = none_BKD.index_put((batch.have_BK,), text_ND[count:])
        return Embeddings(image_BD, text_ND[:count], neg_BKD, batch.have_BK)


def _settle_batch_norm(student: nn.Module) -> bool:
    """Keep the statistics of every BatchNorm that has some; True when one has none yet and must learn them.

    With its statistics kept it treats each picture alone, so chunks and processes change nothing, and student and
    teacher see a picture alike.
    """
    fresh = False
    for module in student.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            learning = not bool(module.running_mean.any())
            module.train(learning)
            fresh |= learning
    return fresh


def _there(teacher: Embeddings | None) -> Embeddings:
    assert teacher is not None
    return teacher
