"""Settings of the generate stage."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config import LOCAL, OneOf, placement
from pipeline.negative_types import ABSENCE, ALL_TYPES, NEGATION, NEGATIVE_TYPES, PARAPHRASE, UNITS
from stages.generate.backends import BACKENDS
from stages.language_models.base import Settings

OWN = "own"
"""As `verify`: the language model that writes."""

Refine = Literal["off", "drop", "reweight", "rebalance"]


class Config(Settings):
    """Who writes the negatives, of which types, and what is tolerated."""

    backend: Annotated[str, OneOf(BACKENDS)] = Field(
        "vllm",
        description="vllm, openai (a server), rules (no model), ranked (rules propose, a model of vllm's ranks), "
        "replay (a file), or given (what the source brought)",
    )
    types: tuple[Annotated[str, OneOf((*ALL_TYPES, UNITS))], ...] = Field(
        NEGATIVE_TYPES,
        description="negative types to make; negation brings absence, its true counterpart; units are what the caption "
        "names, each with a foil; [] makes none",
    )
    paraphrases: bool = Field(False, description="also ask for rewrites that keep the meaning (hard positives)")
    prompts: Annotated[str, LOCAL] = Field(
        "english", description="prompt set below data/prompts, or a folder of your own"
    )
    examples_per_prompt: int = Field(16, ge=0, description="in-context examples per prompt, the first of the file")
    repair_attempts: int = Field(1, ge=0, le=5, description="further tries for a rejected response, with another seed")
    repairs_say_why: bool = Field(
        True, description="a further try is a turn that says what was wrong; off for a model that only knows its prompt"
    )
    max_reject_rate: float = Field(
        0.5, ge=0, le=1, description="share of a type's pairs whose candidates may all be rejected"
    )
    max_error_rate: float = Field(0.01, ge=0, le=1, description="share of a type's requests that may fail")
    refine: Refine = Field(
        "off",
        description="negatives that text alone tells from their captions: off, drop, reweight or rebalance (refine.py)",
    )
    refine_margin: float = Field(0.5, gt=0, lt=1, description="drop: gap of a scorer from which a negative goes")
    likelihood: bool = Field(False, description="vllm: the model's log-probability of both texts as a second scorer")
    verify: Annotated[str | None, LOCAL] = Field(
        None,
        description="whether an accepted text follows from its caption and is grammatical, as columns: own (vllm, "
        "ranked: the language model is asked), or the folder of a model of natural language inference",
    )
    max_follows: float = Field(
        1.0, ge=0, le=1, description="verify: what follows with more than this probability is rejected; degla verify"
    )
    min_grammatical: float = Field(
        0.0, ge=0, le=1, description="verify: what is grammatical with less than this probability is rejected"
    )
    blind_sample: int = Field(4000, ge=100, description="accepted negatives per type the blind test looks at")
    price_per_hour: float | None = Field(None, ge=0, description="of the generating machine, for the card's costs")
    shard_size: int = Field(8192, ge=1, description="captions per shard and part")
    processes: int = placement(
        0, ge=0, description="processes that judge, and that write where the rules do; 0 = one per core"
    )
    keep_every: float = placement(
        120.0, ge=0, description="seconds after which the responses that came in are kept; the most that a kill costs"
    )

    @field_validator("types")
    @classmethod
    def _each_once(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(types)) != len(types):
            raise ValueError("a type stands twice")
        return tuple(kind for kind in (*ALL_TYPES, UNITS) if kind in types)

    @model_validator(mode="after")
    def _scorer_is_there(self) -> "Config":
        if self.likelihood and not BACKENDS[self.backend].is_scorer:
            scorers = " or ".join(name for name, backend in BACKENDS.items() if backend.is_scorer)
            raise ValueError(f"likelihood needs backend {scorers}; got {self.backend}")
        return self

    @model_validator(mode="after")
    def _judge_is_there(self) -> "Config":
        if self.verify == OWN and not BACKENDS[self.backend].is_scorer:
            scorers = " or ".join(name for name, backend in BACKENDS.items() if backend.is_scorer)
            raise ValueError(f"verify=own needs backend {scorers}; got {self.backend}")
        if self.verify is None and (self.max_follows < 1 or self.min_grammatical > 0):
            raise ValueError("max_follows and min_grammatical need verify=own, or a model of inference")
        return self

    @model_validator(mode="after")
    def _samples_are_drawn(self) -> "Config":
        if self.samples > 1 and not BACKENDS[self.backend].is_sampler:
            samplers = " or ".join(name for name, backend in BACKENDS.items() if backend.is_sampler)
            raise ValueError(f"samples={self.samples} needs backend {samplers}; got {self.backend}")
        return self

    @model_validator(mode="after")
    def _constraints_are_heeded(self) -> "Config":
        if isinstance(self.structured, str) and not BACKENDS[self.backend].is_constrained:
            heeding = " or ".join(name for name, backend in BACKENDS.items() if backend.is_constrained)
            raise ValueError(f"structured={self.structured} needs backend {heeding}; got {self.backend}")
        return self

    @model_validator(mode="after")
    def _model_is_of_use(self) -> "Config":
        unset = type(self).model_fields["model"].default
        if self.model != unset and not BACKENDS[self.backend].has_model:
            raise ValueError(
                f"model={self.model} is of no use to backend {self.backend}; choose another backend (ranked: rules "
                f"propose, the model ranks), or generate.model={unset}"
            )
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is asked for: the negative types, and what is true beside them."""
        return (*self.types, *[PARAPHRASE] * self.paraphrases, *[ABSENCE] * (NEGATION in self.types))
