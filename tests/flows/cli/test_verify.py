"""`degla verify`: a real model of inference on SugarCrepe's format and a run's captions, and what is said of it."""

import json
from pathlib import Path

import pytest

from tests.flows.cli.test_main import degla
from tests.stages.generate.test_verify import tiny_judge


def sugarcrepe(root: Path) -> Path:
    (root / "sugarcrepe").mkdir(parents=True)
    for name in ("swap_obj", "add_att"):
        rows = {
            str(i): {"filename": "a.jpg", "caption": f"A dog {i} by a cat.", "negative_caption": f"A cat by a dog {i}."}
            for i in range(30)
        }
        (root / "sugarcrepe" / f"{name}.json").write_text(json.dumps(rows))
    return root


def test_a_model_that_guesses_is_said_not_to_be_up_to_it(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_judge(tmp_path / "nli", scale=0.0)
    command = ("verify", str(tiny_recipe), "--n", "20", "--root", str(sugarcrepe(tmp_path)), "--set",
               f"generate.verify={folder}")  # fmt: skip
    status, out, err = degla(tmp_path, monkeypatch, capsys, *command, "--json")
    assert status == 0, err
    found = json.loads(out)
    assert found["grammatical"] is None and not found["follows"]["is_able"]
    assert found["follows"]["threshold"] == pytest.approx(1 / 3, abs=0.01) and found["follows"]["refused"]["n"] == 12
    status, out, err = degla(tmp_path, monkeypatch, capsys, *command)
    assert status == 0 and "not up to it" in out and "not asked" in out


def test_what_is_missing_is_said(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = degla(tmp_path, monkeypatch, capsys, "verify", str(tiny_recipe))
    assert status == 2 and "generate.verify is not set" in err
