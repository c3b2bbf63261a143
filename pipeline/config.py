"""The base of every configuration, and which of its fields make the identity of a result."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema

from pipeline.assets import DATA, ROOT
from pipeline.errors import UserError

LOCAL = "may name a local file or folder"
"""Annotation of a text that is a name of something, or else a path: `Annotated[str, LOCAL]`."""


class Config(BaseModel):
    """Frozen settings; unknown keys are rejected; every field carries a description with unit and range."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def identity(self) -> dict[str, Any]:
        """The settings that decide the result, as plain JSON data: everything except placement fields."""
        dumped = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if is_placement(field.json_schema_extra):
                del dumped[name]
            elif isinstance(value, Config):
                dumped[name] = value.identity()
            elif isinstance(value, tuple | list) and any(isinstance(item, Config) for item in value):
                dumped[name] = [item.identity() if isinstance(item, Config) else item for item in value]
        return dumped

    @classmethod
    def located(cls, given: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Settings that were given, their relative paths made absolute from `folder`.

        A text that is a name or a path is a path where there is such a file; what degla brings keeps its name.
        """
        found = dict(given)
        for name in given.keys() & cls.model_fields.keys():
            value, field = given[name], cls.model_fields[name]
            if isinstance(value, dict) and isinstance(field.annotation, type) and issubclass(field.annotation, Config):
                found[name] = field.annotation.located(value, folder)
            elif isinstance(value, str) and value and value not in _literals(field.annotation):
                path = folder / Path(value).expanduser()
                is_there = LOCAL in field.metadata and path.exists() and not _is_ours(name, value)
                if is_there or Path in (field.annotation, *get_args(field.annotation)):
                    found[name] = str(path)
        return found


def _is_ours(field: str, value: str) -> bool:
    """Whether a path is below degla's own data: from its root, or from a folder called as the field is."""
    return ((ROOT / value).is_relative_to(DATA) and (ROOT / value).exists()) or (DATA / field / value).exists()


def _literals(annotation: Any) -> list[Any]:
    """Values that an annotation names, at any depth: Path | Literal["mined"] names "mined"."""
    return [value for part in get_args(annotation) for value in (get_args(part) or [part]) if isinstance(value, str)]


def to_yaml(config: Config) -> str:
    """All settings, defaults included, as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


MOST_VALUES = 100_000
"""Of a YAML file, aliases written out: a few lines of them can stand for gigabytes."""


class _Plain(yaml.constructor.SafeConstructor):
    """Builds numbers, texts, lists and mappings, and no Python object; a key twice is a mistake."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        known = self.__dict__.setdefault("_flat", set())
        if id(node) in known:  # it holds what was merged into it
            return
        known.add(id(node))
        seen = set[str]()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        # Of a key that several mappings have, the first counts, and before all the one that stands here. PyYAML's own
        # merging has it otherwise in 6.0.4.
        pairs: dict[object, tuple[yaml.Node, yaml.Node]] = {}
        for mapping in (mapping for key, value in node.value if key.tag == _MERGE for mapping in _merged(value)):
            self.flatten_mapping(mapping)
            for key, value in mapping.value:
                pairs.setdefault(_said(key), (key, value))
        pairs |= {_said(key): (key, value) for key, value in node.value if key.tag != _MERGE}
        node.value = list(pairs.values())
        if len(node.value) > MOST_VALUES:
            raise yaml.constructor.ConstructorError(None, None, "merges (<<) give too many values", node.start_mark)


_MERGE = "tag:yaml.org,2002:merge"


def _said(key: yaml.Node) -> object:
    """Equal for equal keys of a mapping."""
    return (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)


def _merged(value: yaml.Node) -> list[yaml.MappingNode]:
    """What `<<` names: a mapping, or several."""
    found = value.value if isinstance(value, yaml.SequenceNode) else [value]
    if wrong := [one for one in found if not isinstance(one, yaml.MappingNode)]:
        raise yaml.constructor.ConstructorError(None, None, "<< merges what is no mapping", wrong[0].start_mark)
    return list(found)


class _Deep(_Plain, yaml.SafeLoader):
    """Any text: it minds the interpreter's stack."""


class _Shallow(_Plain, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Six times as fast, by libyaml, which overruns its stack on what is nested very deeply."""


MOST_NESTED = 200


def _is_shallow(text: str) -> bool:
    """Whether nothing can be nested deeper than `MOST_NESTED`: indentation or brackets."""
    indented = max(len(found) for found in re.findall(r"^[ ?:-]*", text, re.MULTILINE))
    return indented + text.count("[") + text.count("{") <= MOST_NESTED


def from_yaml(text: str) -> Any:
    """Plain data from YAML text. Raises ValueError, with one line, for text that is none."""
    try:
        found = yaml.load(text, _Shallow if _is_shallow(text) else _Deep)
        if _values(found, {}) > MOST_VALUES:
            raise ValueError(f"its aliases stand for more than {MOST_VALUES:,} values")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (
        yaml.YAMLError,
        ValueError,
        LookupError,
        AttributeError,
    ) as error:  # what a bad !!bool or !!timestamp raises
        raise ValueError(" ".join(str(error).split())) from None
    return found


def _values(value: Any, known: dict[int, int]) -> int:
    """How many values there are, shared ones counted each time. Raises ValueError for one that holds itself."""
    if not isinstance(value, dict | list | tuple):
        return 1
    if id(value) not in known:
        known[id(value)] = 0
        parts = (*value, *value.values()) if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_values(part, known) for part in parts)
    elif not known[id(value)]:
        raise ValueError("it holds itself")
    return known[id(value)]


def placement(default: Any, **kwargs: Any) -> Any:
    """A field that says where or how fast the work runs, never what it gives: it stays out of the fingerprint."""
    return Field(default, json_schema_extra={"placement": True}, **kwargs)


def is_placement(extra: object) -> bool:
    """True for a field made by `placement`."""
    return isinstance(extra, dict) and extra.get("placement") is True


class OneOf:
    """Annotation of a text that names an entry of a table: `Annotated[str, OneOf(BACKENDS)]`.

    The table is looked at when a value is validated, so what is added to it later counts.
    """

    def __init__(self, table: Iterable[str]) -> None:
        self._table = table

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core), "enum": list(self._table)}

    def _known(self, name: str) -> str:
        if name not in self._table:
            raise ValueError(f"one of {', '.join(self._table)}")
        return name


def first_fault(error: ValidationError) -> tuple[str, str]:
    """The first wrong field of a validation, dotted ("" for the whole), and what pydantic says of it."""
    first = error.errors()[0]
    return ".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")


def validation_error(stage: str, what: str, error: ValidationError, expected: str, fix: str) -> UserError:
    """A failed validation as a user's error: `what` was read, the first wrong field, what is wrong with it."""
    field, message = first_fault(error)
    return UserError(stage, f"{what}: {field or 'the file'}: {message}", expected, fix)
