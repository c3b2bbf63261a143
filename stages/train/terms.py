"""The table of loss terms: adding one is a function and a line here.

Light on purpose: a function is named as `module:function` and imported when an objective uses it. A script may add a
term of its own, as a plain function, before it opens a run::

    TERMS["mine"] = Term(function=my_loss, description="what it is")   # then set train.objective.mine=0.5
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from inspect import getsource
from pkgutil import resolve_name
from typing import Any

from pipeline.artifact import digest

OF_EMBEDDINGS = ("student", "teacher", "scale", "bias", "threshold_T")
"""What a term of embeddings may take: `losses.Embeddings` of the whole global batch, by student and teacher; the
learned logit scale; the learned logit bias, None without one; the ranking thresholds per negative type."""

OF_WEIGHTS = ("parameters", "start", "importance")
"""What a term of the model's weights may take: three lists alike, of the student's parameters that have a gradient, of
what they were at the start, and of how much each matters to the retention terms (`baselines.fisher_importance`)."""


@dataclass(frozen=True)
class Term:
    """One term of the loss.

    Attributes:
        function: gives the raw value, a scalar, from `takes` in that order; a function (of a module or a script, if
            several processes are to find it), or where it is, as "module:function".
        description: what it is; the text of its weight's setting and of its column in the steps table.
        takes: of `OF_EMBEDDINGS` or of `OF_WEIGHTS`, and constants of `Loss` by name.
        note: what to know before setting its weight.
        needs_images: it looks at images of the negatives, so `negative_images` must be set.
        needs_paraphrases: it looks at paraphrases of the captions, which come from `paraphrases`.
        needs_patches: it looks at what patches and tokens say, `Embeddings.local_BO`, which costs more than embeddings.
        needs_units: it looks at units of the captions, which `generate.types` must name.
        needs_joined: it looks at joined batches (joined.py), which then take turns with the others.
        retention: its gradients tell which weights matter to what the model knows.
    """

    function: Callable[..., Any] | str
    description: str
    takes: tuple[str, ...] = ("student", "scale")
    note: str = ""
    needs_images: bool = False
    needs_paraphrases: bool = False
    needs_patches: bool = False
    needs_units: bool = False
    needs_joined: bool = False
    retention: bool = False

    @property
    def of_weights(self) -> bool:
        """Whether it is a term of the model's weights, and not of embeddings."""
        return not set(OF_WEIGHTS).isdisjoint(self.takes)

    def resolved(self) -> Callable[..., Any]:
        """The function itself. Raises ImportError, AttributeError or ValueError for a name that leads to none."""
        found: Callable[..., Any] = resolve_name(self.function) if isinstance(self.function, str) else self.function
        return found


_LOSSES, _BASELINES = f"{__package__}.losses", f"{__package__}.baselines"
_BOTH = ("student", "teacher")

TERMS: dict[str, Term] = {
    "base": Term(f"{_LOSSES}:base_loss", "the NegCLIP term, with a sigmoid for SigLIP", ("student", "scale", "bias")),
    "distill": Term(
        f"{_LOSSES}:distill_loss", "the self-distillation term", _BOTH,
        "it is summed, so it grows with the batch; the default is for 256",
    ),
    "igc": Term(f"{_LOSSES}:igc_loss", "the image-grounded contrast"),
    "tgc": Term(f"{_LOSSES}:tgc_loss", "the text-grounded contrast", (*_BOTH, "tgc_scale", "tgc_layout")),
    "pgc": Term(
        f"{_LOSSES}:pgc_loss", "the paraphrase-grounded contrast", (*_BOTH, "tgc_scale"), needs_paraphrases=True
    ),
    "clip": Term(
        f"{_BASELINES}:clip_loss", "CLIP's own loss", ("student", "scale", "clip_smoothing"), "it sees no negatives",
        retention=True,
    ),
    "rank": Term(f"{_BASELINES}:rank_loss", "CE-CLIP's cross-modal rank", ("student", "scale", "threshold_T")),
    "intra": Term(
        f"{_BASELINES}:intra_loss", "CE-CLIP's intra-modal contrast", note="as released from 31 January to 7 March 2024"
    ),
    "focal": Term(
        f"{_BASELINES}:focal_loss", "FSC-CLIP's global hard-negative term",
        ("student", "scale", "focal_gamma", "focal_smoothing"),
    ),
    "local": Term(
        f"{_BASELINES}:local_loss", "FSC-CLIP's local hard-negative term",
        ("student", "focal_gamma", "focal_smoothing"), needs_patches=True,
    ),
    "distractor": Term(f"{_BASELINES}:distractor_loss", "CoN-CLIP's loss", needs_images=True),
    "triplet": Term(f"{_BASELINES}:triplet_loss", "TripletCLIP's second half", needs_images=True),
    "align": Term(f"{_BASELINES}:align_loss", "READ's paraphrase alignment", needs_paraphrases=True),
    "para_clip": Term(
        f"{_BASELINES}:para_clip_loss", "CLIP's own loss over paraphrases", needs_paraphrases=True
    ),
    "units": Term(f"{_BASELINES}:unit_loss", "CS-CLIP's loss over units", needs_units=True),
    "clic": Term(
        f"{_BASELINES}:clic_loss", "CLIC's loss", note="every other batch is of joined images", needs_joined=True
    ),
    "tic": Term(f"{_BASELINES}:tic_loss", "FG-CLIP 2's text contrast", ("student",)),
    "contrast_distill": Term(
        f"{_BASELINES}:contrast_distill_loss", "GIFT's contrastive distillation", (*_BOTH, "scale", "temperature"),
        retention=True,
    ),
    "fisher": Term(
        f"{_BASELINES}:fisher_loss", "GIFT's weighted L2 distance from the start",
        ("parameters", "start", "importance"), "needs ema 1 and contrast_distill or clip",
    ),
}  # fmt: skip
"""Name, in a recipe and the steps table -> term."""


def columns(names: Iterable[str]) -> dict[str, str]:
    """Name -> description, for the columns `<name>_loss` of the steps table (`pipeline.schema.steps_schema`)."""
    return {name: TERMS[name].description.removeprefix("the ") for name in names}


def sources(names: Iterable[str]) -> dict[str, str]:
    """Digest of the source of each term that a script brought as a function, so that an edited loss is a new one."""
    functions = {name: TERMS[name].function for name in names if name in TERMS}
    return {f"term {name}": digest(_source(found)) for name, found in functions.items() if callable(found)}


def _source(function: Callable[..., Any]) -> str:
    try:
        return getsource(function)
    except (OSError, TypeError):  # typed at a prompt, or no plain function
        return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__qualname__)}"
