"""The base of every configuration, and which of its fields make the identity of a result."""

from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    """Frozen settings; unknown keys are rejected; every field carries a description with unit and range."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

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


class _Plain(yaml.SafeLoader):
    """Builds numbers, texts, lists and mappings: no Python object, no alias (lines that stand for gigabytes)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "an alias (*) is not read", self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        return super().compose_node(parent, index)


def from_yaml(text: str) -> Any:
    """Plain data from YAML text. Raises ValueError, with one line, for text that is none."""
    try:
        return yaml.load(text, _Plain)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (
        yaml.YAMLError,
        ValueError,
        LookupError,
        AttributeError,
    ) as error:  # what a bad !!bool or !!timestamp raises
        raise ValueError(" ".join(str(error).split())) from None


def placement(default: Any, **kwargs: Any) -> Any:
    """A field that says where or how fast the work runs, never what it gives: it stays out of the fingerprint."""
    return Field(default, json_schema_extra={"placement": True}, **kwargs)


def is_placement(extra: object) -> bool:
    """True for a field made by `placement`."""
    return isinstance(extra, dict) and extra.get("placement") is True
