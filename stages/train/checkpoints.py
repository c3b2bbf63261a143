"""Checkpoints on disk: always a whole one, the damaged ones known by their name, the oldest thrown away.

`<name>-<step>-<first digits of its sha256>.pt`: the digest is in the name, so one rename makes a checkpoint valid.
"""

from pathlib import Path
from typing import Any

import torch

from pipeline import tables
from pipeline.artifact import file_sha256

DIGITS = 16


def save(state: dict[str, Any], folder: Path, name: str, step: int, keep: int) -> None:
    """Write a checkpoint and remove all but the last `keep` of that name."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"{name}.tmp"
    with unfinished.open("wb") as handle:  # given a path, torch tells a full disk as a RuntimeError of its zip format
        torch.save(state, handle)
    path = folder / f"{name}-{step:08d}-{file_sha256(unfinished)[:DIGITS]}.pt"
    tables.commit_file(unfinished, path)
    for old in listed(folder, name)[keep:]:
        old.unlink()


def listed(folder: Path, name: str) -> list[Path]:
    """The checkpoints of that name, the newest first."""
    return sorted(folder.glob(f"{name}-*.pt"), reverse=True)


def newest(folder: Path, name: str, device: str) -> dict[str, Any] | None:
    """The newest checkpoint whose bytes are those that were written, or None; damaged newer ones are removed."""
    for path in listed(folder, name):
        if file_sha256(path)[:DIGITS] == path.stem.rpartition("-")[2]:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            return state
        path.unlink(missing_ok=True)
    return None


def best(folder: Path, step: int) -> dict[str, Any]:
    """What `save` wrote as "best" at that step."""
    (path,) = folder.glob(f"best-{step:08d}-*.pt")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
