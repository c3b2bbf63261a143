"""Student and teacher, the weighted loss between them, and the moving average that makes the teacher.

The terms are in losses.py and baselines.py; here is how they get the embeddings of the whole global batch,
however it was cut into chunks and over processes, and how their gradients get back to the parameters.

Shapes: B images and captions, K negatives per caption, T types, D embedding width, M pictures.
"""

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from pipeline import clip
from pipeline.errors import UserError
from pipeline.schema import NEGATIVE_TYPES
from stages.train import baselines as rivals
from stages.train import losses, processes
from stages.train.losses import Embeddings

if TYPE_CHECKING:
    from stages.train.batches import Batch
    from stages.train.stage import Loss

RETENTION = ("contrast_distill", "clip")
"""The terms by whose gradients GIFT tells which weights matter to what the model knows."""


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
        threshold_T: what the ranking term asks of each type, made anew after every step.
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
        self.threshold_T = torch.zeros(len(NEGATIVE_TYPES), device=next(student.parameters()).device)
        self._next_threshold_T = self.threshold_T
        theirs = self.teacher.state_dict()
        pairs = [(theirs[name], tensor) for name, tensor in student.state_dict().items()]
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    def embed(self, batch: "Batch") -> Embeddings:
        """What the student says about a batch."""
        return self._embed(self.student, batch)

    def forward_backward(
        self, batch: "Batch", chunks: int = 1, scaled: Callable[[Tensor], Tensor] = lambda loss: loss
    ) -> dict[str, float]:
        """Set the gradients of the loss on the student's parameters.

        Args:
            batch: this process's share of the global batch, on the student's device.
            chunks: pieces the batch is encoded in. More than one bounds the memory to one piece and costs a second
                forward pass (gradient caching, Gao et al. 2021); loss and gradients stay those of the whole batch.
            scaled: what multiplies the loss before it is differentiated (a loss scaler).

        Returns:
            "loss" and each raw term; NaN for a term of weight 0, which is not computed.
        """
        if (chunks > 1 or processes.world() > 1) and self.freshly_normed:
            raise UserError(
                "train",
                f"BatchNorm without statistics would see {max(chunks, processes.world())} pieces of the batch, not it",
                "weights to start from, or whole batches in one process",
                "--set train.accumulate=1 --set train.processes=1, or another train.model",
            )
        importance = self._importance(batch, chunks, scaled) if self.config.fisher else []
        self.student.zero_grad()
        found = self._backward(batch, chunks, self.terms, scaled)
        if self.config.fisher:
            found["fisher"] = self._consolidate(importance, scaled(torch.ones_like(self.threshold_T[0])).item())
        weights = self.config.weights()
        total = sum(weight * found[name] for name, weight in weights.items() if weight)
        return {"loss": total} | {f"{name}_loss": found.get(name, math.nan) for name in weights}

    def terms(
        self, student: Embeddings, teacher: Embeddings | None, only: tuple[str, ...] = ()
    ) -> Iterator[tuple[str, float, Tensor]]:
        """(name, weight, value) of each term whose weight is not 0, or of some, from the global batch's embeddings."""
        config, threshold_T = self.config, self.threshold_T
        scale: Tensor = self.student.logit_scale.exp()  # type: ignore[operator, assignment]
        of_term: dict[str, Callable[[], Tensor]] = {
            "base": lambda: losses.base_loss(student, scale),
            "distill": lambda: losses.distill_loss(student, _there(teacher)),
            "igc": lambda: losses.igc_loss(student, scale),
            "tgc": lambda: losses.tgc_loss(student, _there(teacher), config.tgc_scale, config.tgc_layout),
            "clip": lambda: rivals.clip_loss(student, scale),
            "rank": lambda: rivals.rank_loss(student, scale, threshold_T),
            "intra": lambda: rivals.intra_loss(student, scale),
            "focal": lambda: rivals.focal_loss(student, scale, config.focal_gamma, config.focal_smoothing),
            "distractor": lambda: rivals.distractor_loss(student, scale),
            "triplet": lambda: rivals.triplet_loss(student, scale),
            "contrast_distill": lambda: rivals.contrast_distill_loss(
                student, _there(teacher), scale, config.temperature
            ),
        }
        if config.rank:
            self._next_threshold_T = rivals.rank_thresholds(student, scale, threshold_T)
        for name, weight in config.weights().items():
            if weight and name in of_term and (not only or name in only):
                yield name, weight, of_term[name]()

    @property
    def scale(self) -> float:
        """The student's logit scale."""
        return float(self.student.logit_scale.detach().exp())  # type: ignore[operator]

    @torch.no_grad()
    def after_step(self) -> None:
        """What follows the optimizer's step: the logit scale kept in bounds, teacher and thresholds moved on."""
        scale: Any = self.student.logit_scale
        scale.clamp_(0, math.log(self.config.max_logit_scale))
        self.update_teacher()
        self.threshold_T = self._next_threshold_T

    @torch.no_grad()
    def update_teacher(self) -> None:
        """teacher <- ema * teacher + (1 - ema) * student, over parameters and buffers; counters are copied."""
        teacher, student = zip(*self._averaged, strict=True)
        torch._foreach_lerp_(teacher, student, 1 - self.config.ema)
        for theirs, mine in self._copied:
            theirs.copy_(mine)

    def new_epoch(self) -> None:
        """The ranking term's thresholds begin at 0 in every epoch."""
        self.threshold_T = torch.zeros_like(self.threshold_T)

    # -- from parameters to embeddings and back ------------------------------------------------------------------------

    def _backward(
        self,
        batch: "Batch",
        chunks: int,
        terms: Callable[[Embeddings, Embeddings | None], Iterator[tuple[str, float, Tensor]]],
        scaled: Callable[[Tensor], Tensor],
    ) -> dict[str, float]:
        """Add the gradients of the weighted terms to the parameters, summed over chunks and processes."""
        parts = batch.split(chunks)
        teacher = self._teach(parts)
        with torch.set_grad_enabled(len(parts) == 1):
            pieces = [self._embed(self.student, part) for part in parts]
        if len(parts) == 1 and processes.world() == 1:
            return _differentiate(terms(pieces[0], teacher), scaled)
        mine = Embeddings(*map(torch.cat, zip(*pieces, strict=True)))
        whole = Embeddings(*map(processes.gathered, mine))
        leaves = [tensor.detach().requires_grad_() for tensor in whole[:4]]
        image_BD, text_BD, neg_BKD, other_BD = leaves
        whole = Embeddings(image_BD, text_BD, neg_BKD, other_BD, whole.type_BK, whole.depicted_B)
        found = _differentiate(terms(whole, teacher), scaled)

        first = processes.rank() * len(mine.type_BK)
        gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
        own = [gradient[first : first + len(mine.type_BK)] for gradient in gradients]
        of_parts = zip(*(torch.split(gradient, [len(part.type_BK) for part in parts]) for gradient in own), strict=True)
        for index, of_part in enumerate(of_parts):
            piece = pieces[index] if len(parts) == 1 else self._embed(self.student, parts[index])
            learning = [
                place for place in range(len(leaves)) if piece[place].requires_grad and leaves[place].grad is not None
            ]
            if learning:  # not a locked tower, nor what no term looks at
                torch.autograd.backward([piece[at] for at in learning], [of_part[at] for at in learning])
        # Of the scale every process has the whole gradient already, of the rest its own share's.
        scale: Any = self.student.logit_scale
        if scale.grad is not None:
            scale.grad /= processes.world()
        processes.summed([parameter.grad for parameter in self.student.parameters() if parameter.grad is not None])
        return found

    def _importance(self, batch: "Batch", chunks: int, scaled: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """How much each parameter matters to the retention terms at this step, by a backward pass of their own."""
        self.student.zero_grad()
        self._backward(batch, chunks, partial(self.terms, only=RETENTION), scaled)
        return rivals.fisher_importance([mine.grad for mine, _ in self._consolidated() if mine.grad is not None])

    def _consolidate(self, importance: list[Tensor], factor: float) -> float:
        """Add the gradient of the weights' distance from the start; returns the raw term."""
        pairs = [(mine, start) for mine, start in self._consolidated() if mine.grad is not None]
        parameters, start = map(list, zip(*pairs, strict=True))
        loss = rivals.fisher_loss(parameters, start, importance)
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad.add_(gradient, alpha=self.config.fisher * factor)  # type: ignore[union-attr]
        return loss.item()

    def _consolidated(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """The student's parameters with the teacher's, which are the start's where it does not move (ema 1)."""
        for (name, mine), theirs in zip(self.student.named_parameters(), self.teacher.parameters(), strict=True):
            if name != "logit_scale" and mine.requires_grad:
                yield mine, theirs

    def _teach(self, parts: list["Batch"]) -> Embeddings | None:
        config = self.config
        if not (config.distill or config.tgc or config.contrast_distill):
            return None
        with torch.inference_mode():
            pieces = [self._embed(self.teacher, part) for part in parts]
            found = [processes.gathered(torch.cat(each)) for each in zip(*pieces, strict=True)]
        # An inference tensor cannot be saved for a backward pass; its clone outside of inference mode can.
        return Embeddings(*(tensor.clone() for tensor in found))

    def _embed(self, model: nn.Module, batch: "Batch") -> Embeddings:
        device = batch.type_BK.device.type
        with torch.autocast(device, dtype=self.dtype, enabled=self.dtype is not None):
            image_MD = clip.encode_image(model, torch.cat([batch.image_BCHW, batch.other_MCHW]))
            text_ND = clip.encode_text(model, batch.tokens_NL)
        count, kinds = batch.type_BK.shape
        none_BKD = text_ND.new_zeros(count, kinds, text_ND.shape[1])
        neg_BKD = none_BKD.index_put((batch.have_BK,), text_ND[count:])
        other_BD = image_MD.new_zeros(count, image_MD.shape[1])
        if len(batch.other_MCHW):
            other_BD = other_BD.index_put((batch.depicted_B,), image_MD[count:])
        return Embeddings(image_MD[:count], text_ND[:count], neg_BKD, other_BD, batch.type_BK, batch.depicted_B)


def _differentiate(terms: Iterator[tuple[str, float, Tensor]], scaled: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Backward through the weighted sum of the terms; the raw value of each."""
    listed = list(terms)
    if listed:
        total = torch.stack([weight * value for _, weight, value in listed]).sum()
        scaled(total).backward()  # type: ignore[no-untyped-call]
    return {name: value.item() for name, _, value in listed}


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
