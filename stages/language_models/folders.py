"""Folders that hold a language model: which one a name means, and what tells two of them apart."""

import hashlib
from pathlib import Path

from pipeline import artifact
from pipeline.assets import ROOT
from pipeline.errors import UserError

NON_CONTENT_FILES = (".gitattributes", "acceptance.json")
"""Files of a model folder that change nothing it says."""


SMOLLM2 = "./models/smollm2"
"""Where `degla gguf` puts the small language model, and the recipe `english` looks for it."""


def local_model(model: str) -> Path | None:
    """The folder a model name means: as given, or below the checkout; None for a name on the hub."""
    return next((path for path in (Path(model).expanduser(), ROOT / model) if path.is_dir()), None)


def folder_digest(folder: Path) -> str:
    """Identity of a model folder. Raises UserError when it is none."""
    if not (folder / "config.json").is_file():
        raise UserError("generate", f"{folder} has no config.json", "a Hugging Face model folder", "generate.model")
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.suffix != ".md"]
    return artifact.digest({path.name: _file_digest(path) for path in files if path.name not in NON_CONTENT_FILES})


def _file_digest(path: Path) -> str:
    size, end = path.stat().st_size, 1 << 20
    if size < 64 * end:
        return artifact.file_sha256(path)
    with path.open("rb") as handle:
        ends = [handle.read(end), (handle.seek(-end, 2), handle.read(end))[1]]
    return f"{size} {hashlib.sha256(b''.join(ends)).hexdigest()}"
