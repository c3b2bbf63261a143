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
from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from pipeline.artifact import digest
from pipeline.assets import DATA
from pipeline.config import from_yaml
from pipeline.errors import UserError
from pipeline.schema import NegativeType

PROMPTS = DATA / "prompts"
NOT_APPLICABLE = "not applicable"

Kind = NegativeType | Literal["paraphrase"]
Message = dict[str, str]
"""One turn of a chat: {"role": "system" | "user" | "assistant", "content": text}."""


class Example(BaseModel):
    """A caption and what the model should have answered; None = this type cannot be made from it.

    The answer is called `negative`, in a file of paraphrases `paraphrase`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    caption: str = Field(min_length=1)
    negative: str | None = Field(min_length=1, validation_alias=AliasChoices("negative", "paraphrase"))


class Prompt(BaseModel):
    """The rule of one negative type and its in-context examples."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    type: Kind
    rule: str = Field(min_length=1)
    examples: tuple[Example, ...]

    def prefix(self, count: int) -> list[Message]:
        """The part of the chat that all captions share: the rule and the first `count` examples."""
        messages = [{"role": "system", "content": self.rule}]
        for example in self.examples[:count]:
            messages.append({"role": "user", "content": example.caption})
            messages.append({"role": "assistant", "content": example.negative or NOT_APPLICABLE})
        return messages

    def digest(self, count: int) -> str:
        """Identity of everything the model is told before the caption: 16 hex digits."""
        return digest(self.prefix(count))


def load(name: str, types: Sequence[str], count: int = 0) -> dict[str, Prompt]:
    """Read the prompts of a set, by type.

    Args:
        name: a set below `data/prompts`, or a folder of your own.
        types: the negative types wanted.
        count: examples per prompt wanted.

    Raises UserError naming file and field when a file is missing, is no valid YAML, breaks the schema, is filed under
    another type's name, or holds fewer than `count` examples.
    """
    return {kind: _read(folder(name) / f"{kind}.yaml", kind, count) for kind in types}


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


def _read(path: Path, kind: str, count: int) -> Prompt:
    def refuse(what: str, expected: str) -> UserError:
        return UserError("generate", f"{path}: {what}", expected, "edit the file, or set generate.prompts")

    try:
        prompt = Prompt.model_validate(from_yaml(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise refuse("no such file", f"a prompt for {kind}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise refuse(f"field {where}: {first['msg']}", "type, rule, examples [{caption, negative}]") from None
    except ValueError as error:
        raise refuse(f"no valid YAML ({error})", "a YAML mapping in UTF-8") from None
    if prompt.type != kind:
        raise refuse(f"field type: {prompt.type}", kind)
    if len(prompt.examples) < count:
        raise refuse(f"{len(prompt.examples)} examples", f"at least generate.examples_per_prompt = {count}")
    return prompt
