"""What a stage is: a named verb that turns artifacts into one artifact."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipeline.artifact import Artifact
from pipeline.config import Config

C = TypeVar("C", bound=Config)

Progress = Callable[[str, int, int], None]
"""`progress(what, done, total)`: called during the work; `what` carries the unit ("captions", "steps, loss 0.41")."""

Inputs = Mapping[str, Artifact]
"""Artifact kind -> artifact, for every kind the stage needs."""


def silent(what: str, done: int, total: int) -> None:
    """The progress callback that shows nothing."""


def _nothing(inputs: Inputs) -> dict[str, str]:
    """No digest: most stages read nothing beside their inputs. By name, so that a stage can be sent to a process."""
    return {}


@dataclass(frozen=True)
class Stage(Generic[C]):
    """One verb of the pipeline.

    Attributes:
        name: the verb ("ingest"), also the name of its section in a recipe.
        makes: kind of the artifact it makes ("pairs").
        needs: kinds of the artifacts it reads.
        version: raised whenever the same settings would give another result.
        config: the type of its settings.
        outside: digests of everything it reads from outside the store (files, data assets), by name.
        run: writes the artifact's files into a working folder, which keeps what an earlier, killed call finished
            (same settings, same inputs), and returns facts for the manifest as plain JSON data. Files under
            `.work/` in that folder are scratch: they survive a kill and are removed when the artifact is published.
        assist: does part of the work of another process that is inside `run` with the same arguments; None where
            the work cannot be shared.
        beside: digests of what the home keeps beside the stage's inputs and the stage reads (labels), by name.
    """

    name: str
    makes: str
    needs: tuple[str, ...]
    version: int
    config: type[C]
    outside: Callable[[C], dict[str, str]]
    run: Callable[[C, Inputs, Path, Progress], dict[str, Any]]
    assist: Callable[[C, Inputs, Path, Progress], object] | None = None
    beside: Callable[[Inputs], dict[str, str]] = _nothing
