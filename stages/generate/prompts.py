"""Prompts: per negative type a rule and in-context examples, as data files anyone can edit.

`data/prompts/<set>/<type>.yaml`:

    type: swap_nouns
    rule: |
      You rewrite a caption so that ...
    examples:
      - caption: A dog chases a cat.
        negative: A cat chases a dog.
      - caption: A dog.
        negative: null          # not applicable: there is nothing to swap

A chat is: the rule (system), then caption (user) and negative (assistant) of each example, then the caption. The
first part is the same for every caption of a type, so an engine computes it once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from pipeline.artifact import digest
from pipeline.assets import DATA
from pipeline.config import OneOf, first_fault, from_yaml
from pipeline.errors import UserError
from pipeline.negative_types import BESIDE, KINDS
from stages.generate.backends import BACKENDS
from stages.generate.checks import NOT_APPLICABLE
from stages.generate.config import Config
from stages.language_models.base import Message

PROMPTS = DATA / "prompts"
NO_PROMPT = "none"
"""In place of a digest, where the model is given nothing."""


class Example(BaseModel):
    """A caption and what the model should have answered; None = this type cannot be made from it.

    The answer is called `negative`; of what is no negative by the file's type: `paraphrase`, `absence`, `units`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    caption: str = Field(min_length=1)
    negative: str | None = Field(min_length=1, validation_alias=AliasChoices("negative", *BESIDE))


class Prompt(BaseModel):
    """The rule of one negative type and its in-context examples."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    type: Annotated[str, OneOf(KINDS)]
    rule: str = Field(min_length=1)
    examples: tuple[Example, ...]

    @property
    def prefix(self) -> list[Message]:
        """The part of the chat that all captions share: the rule and the examples."""
        messages = [{"role": "system", "content": self.rule}]
        for example in self.examples:
            messages.append({"role": "user", "content": example.caption})
            messages.append({"role": "assistant", "content": example.negative or NOT_APPLICABLE})
        return messages

    @property
    def digest(self) -> str:
        """Identity of everything the model is given before the caption: 16 hex digits."""
        return digest(self.prefix)


def prompts_of(config: Config) -> dict[str, Prompt | None]:
    """The prompt of every wanted type; None where the backend is given nothing."""
    if not BACKENDS[config.backend].needs_prompt:
        return dict.fromkeys(config.kinds)
    return dict(load(config.prompts, config.kinds, config.examples_per_prompt))


def prompt_digest(prompt: Prompt | None) -> str:
    """Identity of what the model is given; "none" where it is given nothing."""
    return prompt.digest if prompt else NO_PROMPT


def rows(config: Config) -> list[dict[str, str]]:
    """The prompts table: each prompt that is given, with the digest that the negatives name."""
    told = {prompt.digest: show(prompt.prefix) for prompt in prompts_of(config).values() if prompt}
    return [{"digest": digest, "text": text} for digest, text in sorted(told.items())]


def render_prompt(config: Config, kind: str, caption: str) -> str:
    """The exact chat a caption gets, as text.

    Raises UserError for an unknown type, a caption without a word, or a backend that reads no prompt.
    """
    if not caption.strip():
        raise UserError("prompt", f"the caption is {caption!r}", "a caption", f"degla prompt {kind} 'A red cup.'")
    if kind not in KINDS:
        raise UserError("prompt", f"no type {kind!r}", f"one of {', '.join(KINDS)}", "name one of them")
    if not BACKENDS[config.backend].needs_prompt:
        told = " or ".join(name for name, backend in BACKENDS.items() if backend.needs_prompt)
        raise UserError("prompt", f"backend {config.backend} reads no prompt", told, "generate.backend")
    prompt = load(config.prompts, [kind], config.examples_per_prompt)[kind]
    return show([*prompt.prefix, {"role": "user", "content": caption}])


def load(name: str, types: Sequence[str], examples: int | None = None) -> dict[str, Prompt]:
    """Read the prompts of a set, by type.

    Args:
        name: a set below `data/prompts`, or a folder of your own.
        types: the negative types wanted.
        examples: how many of its examples each prompt has, the first of the file; None = all.

    Raises UserError naming file and field when a file is missing, is no valid YAML, breaks the schema, is filed under
    another type's name, or holds too few examples.
    """
    return {kind: _read(folder(name) / f"{kind}.yaml", kind, examples) for kind in types}


def folder(name: str) -> Path:
    """Where a prompt set lies. Raises UserError when there is no such set."""
    for place in (PROMPTS / name, Path(name).expanduser()):
        if place.is_dir():
            return place
    known = ", ".join(sorted(path.name for path in PROMPTS.iterdir() if path.is_dir())) if PROMPTS.is_dir() else "none"
    raise UserError("generate", f"no prompt set {name!r}", f"a folder, or one of: {known}", "generate.prompts")


def show(messages: Sequence[Message]) -> str:
    """A chat as text, for people."""
    return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in messages) + "\n"


def _read(path: Path, kind: str, examples: int | None) -> Prompt:
    def unusable(what: str, expected: str) -> UserError:
        return UserError("generate", f"{path}: {what}", expected, "edit the file, or set generate.prompts")

    try:
        prompt = Prompt.model_validate(from_yaml(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise unusable("no such file", f"a prompt for {kind}") from None
    except ValidationError as error:
        field, message = first_fault(error)
        where = f"field {field}" if field else "the file"
        raise unusable(f"{where}: {message}", "type, rule, examples [{caption, negative}]") from None
    except ValueError as error:
        raise unusable(f"no valid YAML ({error})", "a YAML mapping in UTF-8") from None
    if prompt.type != kind:
        raise unusable(f"field type: {prompt.type}", kind)
    if examples is not None and len(prompt.examples) < examples:
        raise unusable(f"{len(prompt.examples)} examples", f"at least generate.examples_per_prompt = {examples}")
    return prompt.model_copy(update={"examples": prompt.examples[:examples]})
