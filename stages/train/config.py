"""How a CLIP is trained: the settings, of which the defaults are the paper's."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from pipeline.clip.names import HUB, local_folder
from pipeline.config import LOCAL, placement
from pipeline.config import Config as BaseConfig
from pipeline.negative_types import ALL_TYPES, NEGATIVE_TYPES
from stages.train.terms import TERMS, Term

Source = Literal["rewrites", "captions", "absences"]
"""Where paraphrases come from."""


def _weight(name: str, default: float = 0.0) -> Any:
    return Field(default, ge=0, description=_description(TERMS[name]))


def _description(term: Term) -> str:
    """What the weight of a term is, for the help of its setting."""
    parts = [f"weight of {term.description}", term.note]
    parts += ["needs negative_images"] * term.needs_images + ["needs paraphrases"] * term.needs_paraphrases
    parts += ["needs units in generate.types"] * term.needs_units
    return "; ".join(filter(None, parts))


def _with_own_terms(schema: dict[str, Any]) -> None:
    """Give the JSON schema the terms that were added to the table; any other name stays wrong."""
    for name, term in TERMS.items():
        weight = {"type": "number", "minimum": 0, "default": 0.0, "description": _description(term)}
        schema["properties"].setdefault(name, weight)
    schema["additionalProperties"] = False


_Beta = Annotated[float, Field(ge=0, lt=1)]


class Loss(BaseConfig):
    """Weights and constants of the loss; the defaults are the paper's. What each term is: stages/train/terms.py.

    A term without a field here weighs 0 until it is set, and only then is part of what is dumped and of the
    fingerprint: a term that is added changes no training without it.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra=_with_own_terms)
    __pydantic_extra__: dict[str, Annotated[float, Field(ge=0)]] = Field(init=False)

    base: float = _weight("base", 1.0)
    distill: float = _weight("distill", 0.005)
    igc: float = _weight("igc", 0.1)
    tgc: float = _weight("tgc", 0.1)
    clip: float = _weight("clip")
    rank: float = _weight("rank")
    intra: float = _weight("intra")
    focal: float = _weight("focal")
    distractor: float = _weight("distractor")
    triplet: float = _weight("triplet")
    contrast_distill: float = _weight("contrast_distill")
    fisher: float = _weight("fisher")
    tgc_scale: float = Field(10.0, gt=0, description="logit scale of the text-grounded contrast, fixed")
    tgc_layout: Literal["paper", "as_released"] = Field(
        "paper", description="which negatives a caption meets in tgc: its own, or those the released code picks"
    )
    focal_gamma: float = Field(2.0, ge=0, description="FSC-CLIP's focal exponent")
    focal_smoothing: float = Field(0.02, ge=0, lt=1, description="FSC-CLIP's label smoothing")
    clip_smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing of the term clip")
    temperature: float = Field(2.0, gt=0, description="of GIFT's contrastive distillation")
    ema: float = Field(0.9996, ge=0, le=1, description="teacher <- ema * teacher + (1 - ema) * student, every step")
    max_logit_scale: float | None = Field(
        100.0, gt=1, description="the learned logit scale is clamped to [1, this]; null = no clamp, as for SigLIP"
    )

    @model_validator(mode="before")
    @classmethod
    def _are_terms(cls, given: Any) -> Any:
        """What is no field must be a term of the table; else it is the error that any unknown key is."""
        names = given if isinstance(given, dict) else {}
        unknown = [name for name in names if name not in cls.model_fields and name not in TERMS]
        if unknown:
            faults = [InitErrorDetails(type="extra_forbidden", loc=(name,), input=given[name]) for name in unknown]
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return given

    @model_validator(mode="after")
    def _learns_something(self) -> "Loss":
        weighted = self.terms()
        if all(term.of_weights for term in weighted.values()):
            raise ValueError("at least one term must have a weight above 0")
        retention = [name for name, term in TERMS.items() if term.retention]
        for name, term in weighted.items():
            if "start" in term.takes and self.ema < 1:
                raise ValueError(f"{name} measures from the start, so ema must be 1")
            if "importance" in term.takes and weighted.keys().isdisjoint(retention):
                raise ValueError(f"{name} weighs by {' or '.join(retention)}, so one of them must be above 0")
        return self

    def weights(self) -> dict[str, float]:
        """Term -> weight, in the order of the steps table: those that have a field, then others that are set."""
        fields = {name: getattr(self, name) for name in type(self).model_fields if name in TERMS}
        return fields | (self.model_extra or {})

    def terms(self) -> dict[str, Term]:
        """The terms whose weight is not 0."""
        return {name: TERMS[name] for name, weight in self.weights().items() if weight}


class Config(BaseConfig):
    """How the student is trained; the defaults are the paper's."""

    model: Annotated[str, LOCAL] = Field(
        "ViT-B-32",
        description="open_clip architecture, hf-hub:owner/name, or a local folder, open_clip's or of a CLIPModel",
    )
    pretrained: Annotated[str | None, LOCAL] = Field(
        "openai",
        description="open_clip tag or weights file; null: the folder's or hub's own weights, else random ones "
        "(the default where model is a folder or of the hub)",
    )
    activation: Literal["gelu", "quick_gelu"] | None = Field(
        None, description="what a weights file was trained with that does not say it; null: what it, or model, says"
    )
    seed: int = Field(42, ge=0, description="of random weights, order of the rows and draw of the negatives")
    epochs: int = Field(5, ge=1, description="passes over the training split")
    batch: int = Field(256, ge=2, description="pairs in the global batch, over all processes and chunks")
    types: tuple[str, ...] = Field(NEGATIVE_TYPES, description="negative types that may be drawn")
    negatives_per_caption: int = Field(
        4,
        ge=0,
        le=len(ALL_TYPES),
        description="K: drawn anew for each caption and epoch from the types it has; 0 = plain CLIP",
    )
    similar_images: int = Field(
        0, ge=0, description="NegCLIP's mining: half of each batch is drawn from this many nearest images; 0 = off"
    )
    negative_images: Path | Literal["mined"] | None = Field(
        None,
        description="images of negatives: a CSV or Parquet file (pair_id, type, image beside it), or mined = the "
        "training image that the negative fits best by the starting model",
    )
    paraphrases: tuple[Source, ...] = Field(
        ("rewrites", "captions"),
        min_length=1,
        description="where the paraphrase that a term needs is drawn from, anew for each epoch: rewrites of the "
        "caption (generate.paraphrases), other captions of its image, absences (the caption with what the image lacks: "
        "generate.types with negation)",
    )
    crop: Literal["center", "random"] = Field(
        "center",
        description="how images are cut: center, as in evaluation, but JPEGs are decoded at a reduced scale (mean "
        "difference 0.8 of 255 in a quarter of photographs); or random, open_clip's crop for training (0.9 to 1.0 of "
        "the area, bicubic), drawn by seed, step and place in the batch, of images resized once to 8/7 of the model's "
        "side (mean difference 0.9 of 255)",
    )
    objective: Loss = Field(Loss(), description="the loss")
    lock_image: bool = Field(False, description="keep the image tower as it is")
    lock_text: bool = Field(False, description="keep the text tower as it is")
    lock_scale: bool = Field(False, description="keep the logit scale, and a SigLIP's bias, as they are")
    unlocked_groups: int | dict[Literal["image", "text"], int] = Field(
        0,
        description="layer groups of a locked tower that learn all the same: 2 = the last two, -2 = the first two, a "
        "transformer's embeddings and first layer; {text: -2} = of that tower alone",
    )
    text_map: bool = Field(
        False, description="learn one linear map of the text embeddings alone; folded into the text projection"
    )
    lora_rank: int = Field(0, ge=0, description="learn by LoRA of this rank (needs the extra lora); 0 = all weights")
    lora_alpha: float = Field(8.0, gt=0, description="LoRA's scale, alpha / rank")
    lr: float = Field(1e-6, gt=0, description="peak learning rate")
    betas: tuple[_Beta, _Beta] = Field((0.9, 0.98), description="AdamW's betas")
    eps: float = Field(1e-6, gt=0, description="AdamW's epsilon")
    weight_decay: float = Field(0.1, ge=0, description="AdamW's weight decay")
    decay_all: bool = Field(
        False, description="decay every weight; false = as open_clip: no gain, bias, bias table and logit scale"
    )
    warmup: int = Field(50, ge=0, description="steps of linear warm-up; a cosine to 0 follows")
    grad_clip: float | None = Field(None, gt=0, description="largest global gradient norm; null = no clipping")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of the encoders (AMP); the loss is fp32")
    select: Literal["last", "best"] = Field(
        "last", description="which epoch is kept: the last, or the best on the dataset's val split (no benchmark)"
    )
    alpha: float = Field(
        1.0, gt=0, le=1, description="the student kept is (1 - alpha) * start + alpha * trained (WiSE-FT): forgets less"
    )
    accumulate: int = placement(1, ge=1, description="chunks a batch is encoded in: less memory, same gradients")
    auto_accumulate: bool = placement(False, description="out of memory: continue with twice the chunks, same batch")
    checkpoint_gradients: bool = placement(False, description="compute activations twice: less memory, same gradients")
    compile: bool = placement(False, description="torch.compile both towers (rounds differently)")
    deterministic: bool = placement(False, description="only kernels that give the same bits each time (GPU, slower)")
    processes: int = placement(1, ge=1, description="processes, one per GPU or sharing the cores; batch is over all")
    device: str = placement(
        "auto",
        pattern=r"^(auto|cpu|mps|xpu|cuda(:\d+)?)$",
        description="torch device; auto = cuda where there is one, else cpu",
    )
    workers: int = placement(2, ge=0, description="loader processes, of each process")
    cache_mb: int = placement(
        16_384,
        ge=0,
        description="decode images once and keep them in the home when they take at most this, MB; "
        "shared by all runs; COCO takes 11,900, for random crops 15,500; 0 = decode them in every epoch",
    )
    checkpoint_steps: int = placement(200, ge=1, description="steps between checkpoints; the most that a kill can cost")
    keep_checkpoints: int = placement(2, ge=1, description="last checkpoints kept; a damaged one gives way to the next")
    tensorboard: Path | None = placement(None, description="also log to this folder (needs the extra tensorboard)")
    wandb: str | None = placement(None, description="also log to this Weights & Biases project (needs the extra wandb)")

    @property
    def needs_paraphrases(self) -> bool:
        """Whether a term looks at paraphrases."""
        return any(term.needs_paraphrases for term in self.objective.terms().values())

    @property
    def needs_units(self) -> bool:
        """Whether a term looks at units."""
        return any(term.needs_units for term in self.objective.terms().values())

    @property
    def needs_joined(self) -> bool:
        """Whether a term looks at joined batches."""
        return any(term.needs_joined for term in self.objective.terms().values())

    @model_validator(mode="before")
    @classmethod
    def _folder_brings_its_weights(cls, given: Any) -> Any:
        """The default tag is of the default model; folder and hub, named without one, have weights of their own."""
        if isinstance(given, dict) and "pretrained" not in given:
            model = str(given.get("model", ""))
            if model.startswith(HUB) or local_folder(model):
                return {**given, "pretrained": None}
        return given

    @model_validator(mode="after")
    def _fits(self) -> "Config":
        if self.batch % self.processes:
            raise ValueError(f"batch {self.batch} must divide by processes {self.processes}")
        if self.similar_images and self.batch % 2:
            raise ValueError("similar_images fill half of each batch, so batch must be even")
        needing = [name for name, term in TERMS.items() if term.needs_images]
        weights = self.objective.weights()
        if self.negative_images is None and any(weights.get(name) for name in needing):
            raise ValueError(f"{' and '.join(needing)} need negative_images: a table, or mined")
        if self.lora_rank and (self.lock_image or self.lock_text):
            raise ValueError("lora_rank learns beside frozen towers already; leave lock_image and lock_text out")
        if self.text_map and (self.lora_rank or self.lock_image or self.lock_text):
            raise ValueError("text_map learns beside frozen towers; leave lora_rank, lock_image and lock_text out")
        return self

    @model_validator(mode="after")
    def _types_exist(self) -> "Config":
        unknown = set(self.types) - set(ALL_TYPES)
        if unknown or len(set(self.types)) < len(self.types):
            raise ValueError(f"types must be different ones of {', '.join(ALL_TYPES)}; got {', '.join(self.types)}")
        return self
