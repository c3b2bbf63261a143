"""Student and teacher, the weighted loss between them, and the moving average that makes the teacher.

The terms are listed in terms.py; here is how they get the embeddings of the whole global batch, however it was cut into
chunks and over processes, and how their gradients get back to the parameters.

Shapes: B images and captions, K negatives per caption, T types, U units of a caption, D embedding width, M images.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from pipeline import clip
from pipeline.clip import dense, tuning
from pipeline.errors import UserError
from pipeline.negative_types import ALL_TYPES
from stages.train import processes
from stages.train.baselines import fisher_importance, local_scores, rank_thresholds
from stages.train.batches import Batch
from stages.train.config import Loss
from stages.train.losses import Embeddings
from stages.train.terms import OF_EMBEDDINGS, OF_WEIGHTS, TERMS, Term

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Weighted(NamedTuple):
    """A term whose weight is not 0, and its function."""

    weight: float
    term: Term
    function: Callable[..., Any]


class Objective:
    """The student that learns, the teacher that follows it, and the loss between them.

    Args:
        config: weights and constants.
        student: an open_clip model on its device, fp32; trained in place.
        precision: of the encoders; the loss is always fp32.

    Raises:
        UserError: a term has no function, or takes what there is not.

    Attributes:
        freshly_normed: a BatchNorm of the student still learns its statistics, from each chunk as a whole.
        threshold_T: what the ranking term asks of each type.
        next_threshold_T: what it asks once the step is made, of which `forward_backward` gave the gradients.
    """

    def __init__(self, config: Loss, student: nn.Module, precision: Literal["fp32", "bf16", "fp16"] = "fp32") -> None:
        self.config, self.student = config, student
        terms = _weighted(config)
        self._of_embeddings = {name: weighted for name, weighted in terms.items() if not weighted.term.of_weights}
        self._of_weights = {name: weighted for name, weighted in terms.items() if weighted.term.of_weights}
        self._looks_at_patches = any(weighted.term.needs_patches for weighted in terms.values())
        self.teacher = copy.deepcopy(student).eval().requires_grad_(False)
        self.dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        student.train()
        self.freshly_normed = _settle_batch_norm(student)
        self.threshold_T = torch.zeros(len(ALL_TYPES), device=next(student.parameters()).device)
        self.next_threshold_T = self.threshold_T
        theirs = self.teacher.state_dict()
        pairs = [(theirs[name], tensor) for name, tensor in student.state_dict().items()]
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    def embed(self, batch: Batch) -> Embeddings:
        """What the student says about a batch."""
        return self._embed(self.student, batch)

    def forward_backward(
        self, parts: Sequence[Batch], scaled: Callable[[Tensor], Tensor] = lambda loss: loss
    ) -> dict[str, Tensor]:
        """Set the gradients of the loss on the student's parameters; nothing here waits for the device.

        Args:
            parts: this process's share of the global batch, on the student's device, in the pieces it is encoded in.
                More than one bounds the memory to one piece and costs a second forward pass (gradient caching, Gao et
                al. 2021); loss and gradients stay those of the whole batch.
            scaled: what multiplies the loss before it is differentiated (a loss scaler).

        Returns:
            "loss" and each raw term, scalars on the device; a term of weight 0 is not computed.
        """
        pieces = max(len(parts), processes.world())
        if pieces > 1 and self.freshly_normed:
            raise UserError(
                "train",
                f"BatchNorm without statistics would see {pieces} pieces of the batch, not it",
                "weights to start from, or whole batches in one process",
                "--set train.accumulate=1 --set train.processes=1, or another train.model",
            )
        importance = self._importance(parts, scaled) if _take("importance", self._of_weights) else []
        self.student.zero_grad()
        found, self.next_threshold_T = self._backward(parts, self._of_embeddings, scaled)
        if self._of_weights:
            found |= self._backward_of_weights(importance, scaled)
        weights = self.config.weights()
        total = torch.stack([weights[name] * value for name, value in found.items()]).sum()
        return {"loss": total} | {f"{name}_loss": found[name] for name in weights if name in found}

    @property
    def scale(self) -> Tensor:
        """The student's logit scale."""
        scale: Tensor = self.student.logit_scale.detach().exp()  # type: ignore[operator]
        return scale

    @property
    def _bias(self) -> nn.Parameter | None:
        """The student's logit bias, if it is a SigLIP."""
        return getattr(self.student, "logit_bias", None)

    @torch.no_grad()
    def after_step(self, made: Tensor) -> None:
        """What follows the optimizer's step: the logit scale kept in bounds, teacher and thresholds moved on.

        `made`: bool, whether the step changed anything, which only the device may know.
        """
        scale: Any = self.student.logit_scale
        if scale.requires_grad and self.config.max_logit_scale is not None and self._bias is None:
            scale.clamp_(0, math.log(self.config.max_logit_scale))
        self.update_teacher(made)
        self.threshold_T = torch.where(made, self.next_threshold_T, self.threshold_T)

    @torch.no_grad()
    def update_teacher(self, moves: Tensor) -> None:
        """teacher <- ema * teacher + (1 - ema) * student, over parameters and buffers; counters are copied.

        Where `moves` is false it stays as it is.
        """
        teacher, student = zip(*self._averaged, strict=True)
        share = {kind: (1 - self.config.ema) * moves.to(kind) for kind in {tensor.dtype for tensor in teacher}}
        torch._foreach_lerp_(teacher, student, [share[tensor.dtype] for tensor in teacher])
        for theirs, mine in self._copied:
            theirs.copy_(torch.where(moves, mine, theirs))

    def new_epoch(self) -> None:
        """The ranking term's thresholds begin at 0 in every epoch."""
        self.threshold_T = torch.zeros_like(self.threshold_T)

    # -- from parameters to embeddings and back ------------------------------------------------------------------------

    def _backward(
        self,
        parts: Sequence[Batch],
        terms: Mapping[str, Weighted],
        scaled: Callable[[Tensor], Tensor],
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Add the gradients of weighted terms of embeddings to the parameters, summed over chunks and processes.

        Returns the raw terms and the ranking thresholds that follow.
        """
        teacher = self._teach(parts) if _take("teacher", terms) else None
        with torch.set_grad_enabled(len(parts) == 1):
            pieces = [self._embed(self.student, part) for part in parts]
        if len(parts) == 1 and processes.world() == 1:
            return self._differentiate(terms, pieces[0], teacher, scaled)
        mine = Embeddings(*map(torch.cat, zip(*pieces, strict=True)))
        whole = Embeddings(*map(processes.gathered, mine))
        leaves = [tensor.detach().requires_grad_() for tensor in whole if tensor.is_floating_point()]
        whole = Embeddings(*leaves, *whole[len(leaves) :])
        found = self._differentiate(terms, whole, teacher, scaled)

        first = processes.rank() * len(mine.type_BK)
        gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
        own = [gradient[first : first + len(mine.type_BK)] for gradient in gradients]
        # Of scale and bias every process has the whole gradient already; of the rest, so of local scores, its share's.
        for shared in tuning.logit_parameters(self.student):
            if shared.grad is not None:
                shared.grad /= processes.world()
        of_parts = zip(*(torch.split(gradient, [len(part.type_BK) for part in parts]) for gradient in own), strict=True)
        for index, of_part in enumerate(of_parts):
            piece = pieces[index] if len(parts) == 1 else self._embed(self.student, parts[index])
            learning = [
                place for place in range(len(leaves)) if piece[place].requires_grad and leaves[place].grad is not None
            ]
            if learning:  # not a locked tower, nor what no term looks at
                torch.autograd.backward([piece[at] for at in learning], [of_part[at] for at in learning])
        processes.summed([parameter.grad for parameter in self.student.parameters() if parameter.grad is not None])
        return found

    def _differentiate(
        self,
        terms: Mapping[str, Weighted],
        student: Embeddings,
        teacher: Embeddings | None,
        scaled: Callable[[Tensor], Tensor],
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Backward through the weighted sum of the terms; the raw value of each, and the thresholds that follow."""
        scale: Tensor = self.student.logit_scale.exp()  # type: ignore[operator]
        threshold_T = self.threshold_T
        given = {
            "student": student, "teacher": teacher, "scale": scale, "bias": self._bias, "threshold_T": threshold_T
        }  # fmt: skip
        values = {name: self._value(weighted, given) for name, weighted in terms.items()}
        if values:
            total = torch.stack([weighted.weight * values[name] for name, weighted in terms.items()]).sum()
            scaled(total).backward()  # type: ignore[no-untyped-call]
        if _take("threshold_T", terms):
            threshold_T = rank_thresholds(student, scale, threshold_T)
        return {name: value.detach() for name, value in values.items()}, threshold_T

    def _importance(self, parts: Sequence[Batch], scaled: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """How much each parameter matters to the retention terms at this step, by a backward pass of their own."""
        self.student.zero_grad()
        retention = {name: weighted for name, weighted in self._of_embeddings.items() if weighted.term.retention}
        self._backward(parts, retention, scaled)
        return fisher_importance([mine.grad for mine, _ in self._tuned() if mine.grad is not None])

    def _backward_of_weights(self, importance: list[Tensor], scaled: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Add the gradients of weighted terms of the weights to those there are already; returns the raw terms."""
        pairs = [(mine, start) for mine, start in self._tuned() if mine.grad is not None]
        parameters, start = map(list, zip(*pairs, strict=True))
        factor = scaled(torch.ones_like(self.threshold_T[0]))
        found = {}
        for name, weighted in self._of_weights.items():
            loss = self._value(weighted, {"parameters": parameters, "start": start, "importance": importance})
            gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad.add_(gradient * factor, alpha=weighted.weight)
            found[name] = loss.detach()
        return found

    def _value(self, weighted: Weighted, given: Mapping[str, Any]) -> Tensor:
        """The raw value of a term, from what there is and the constants of the loss."""
        value: Tensor = weighted.function(
            *(given[name] if name in given else getattr(self.config, name) for name in weighted.term.takes)
        )
        return value

    def _tuned(self) -> list[tuple[nn.Parameter, Tensor]]:
        """The student's parameters with the teacher's, which are the start's where it does not move (ema 1)."""
        both = zip(self.student.named_parameters(), self.teacher.parameters(), strict=True)
        return [(mine, theirs) for (name, mine), theirs in both if name not in tuning.LOGIT and mine.requires_grad]

    def _teach(self, parts: Sequence[Batch]) -> Embeddings:
        with torch.inference_mode():
            pieces = [self._embed(self.teacher, part) for part in parts]
            found = [processes.gathered(torch.cat(each)) for each in zip(*pieces, strict=True)]
        # An inference tensor cannot be saved for a backward pass; its clone outside of inference mode can.
        return Embeddings(*(tensor.clone() for tensor in found))

    def _embed(self, model: nn.Module, batch: Batch) -> Embeddings:
        places, device = batch.places or batch.located(None).places, batch.type_BK.device.type
        assert places is not None
        (count, kinds), further = batch.type_BK.shape, batch.more_BX.shape[1]
        told_BU = batch.type_BK.new_zeros(count, 0, dtype=torch.bool) if batch.told_BU is None else batch.told_BU
        foils = further - told_BU.shape[1]
        units = foils - told_BU.shape[1]
        image_MCHW = torch.cat([batch.image_BCHW, batch.other_MCHW])
        with torch.autocast(device, dtype=self.dtype, enabled=self.dtype is not None):
            if self._looks_at_patches and model is self.student:
                image_MD, patch_MPD = dense.encode_image(model, image_MCHW)
                text_ND, token_NLD, said_NL = dense.encode_text(model, batch.tokens_NL, places.tree)
                dense_N = (patch_MPD[:count], token_NLD, said_NL)
            else:
                image_MD, dense_N = clip.encode_image(model, image_MCHW), None
                text_ND = clip.encode_text(model, batch.tokens_NL, places.tree)

        def placed(each_N: Tensor) -> Tensor:
            """What each further text gives, at its place [B, X]; 0 where there is none."""
            none = each_N.new_zeros(count * further, *each_N.shape[1:])
            return none.index_copy(0, places.more_R, each_N[count:]).view(count, further, *each_N.shape[1:])

        more_BXD, local_BO = placed(text_ND), text_ND.new_zeros(count, 1 + kinds)
        if dense_N:
            score_N = self._local(*dense_N, places.more_R // further)
            local_BO = torch.cat([score_N[:count, None], placed(score_N)[:, :kinds]], dim=1)
        other_BD = image_MD.new_zeros(count, image_MD.shape[1])
        if len(batch.other_MCHW):
            other_BD = other_BD.index_copy(0, places.depicted_M, image_MD[count:])
        return Embeddings(
            image_MD[:count],
            text_ND[:count],
            more_BXD[:, :kinds],
            other_BD,
            more_BXD[:, kinds],
            local_BO,
            more_BXD[:, kinds + 1 : units],
            more_BXD[:, units:foils],
            more_BXD[:, foils:],
            batch.type_BK,
            batch.depicted_B,
            batch.rephrased_B,
            told_BU,
        )

    def _local(self, patch_BPD: Tensor, token_NLD: Tensor, said_NL: Tensor, image_R: Tensor) -> Tensor:
        """`local_scores` of all texts, each with its image: a caption with its own, a further text with `image_R`."""
        exact = torch.promote_types(token_NLD.dtype, torch.float32)
        scale: Tensor = self.student.logit_scale.exp()  # type: ignore[operator]
        patch_RPD = patch_BPD.index_select(0, image_R)
        return local_scores(torch.cat([patch_BPD, patch_RPD]).to(exact), token_NLD.to(exact), said_NL, scale)


def _take(argument: str, terms: Mapping[str, Weighted]) -> bool:
    return any(argument in weighted.term.takes for weighted in terms.values())


def _weighted(config: Loss) -> dict[str, Weighted]:
    """The terms that are to be computed. Raises UserError for one that cannot be."""
    found = {}
    for name, weight in config.weights().items():
        if not weight:
            continue
        try:
            found[name] = Weighted(weight, TERMS[name], TERMS[name].resolved())
        except (KeyError, ImportError, AttributeError, ValueError) as error:
            raise UserError(
                "train",
                f"the term {name} has no function: {type(error).__name__}: {error}",
                "a function, or module:function",
                f"correct stages.train.terms.TERMS[{name!r}]",
            ) from None
        takes = set(TERMS[name].takes)
        known = {*(OF_WEIGHTS if TERMS[name].of_weights else OF_EMBEDDINGS), *type(config).model_fields} - TERMS.keys()
        if unknown := takes - known:
            raise UserError(
                "train",
                f"the term {name} takes {', '.join(sorted(unknown))}",
                f"only {', '.join(sorted(known))}",
                f"correct stages.train.terms.TERMS[{name!r}]",
            )
    return found


def _settle_batch_norm(student: nn.Module) -> bool:
    """Keep the statistics of every BatchNorm that has some or is locked; True when another one must learn them.

    With its statistics kept it treats each image alone, so chunks and processes change nothing, and student and
    teacher see an image alike.
    """
    fresh = False
    for module in student.modules():
        if isinstance(module, BATCH_NORMS) and module.running_mean is not None:
            locked = not all(parameter.requires_grad for parameter in module.parameters())
            learning = not locked and not bool(module.running_mean.any())
            module.train(learning)
            fresh |= learning
    return fresh
