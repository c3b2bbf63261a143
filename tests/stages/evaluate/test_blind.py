"""Text-only baselines find what text gives away, and nothing else."""

import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.stage import silent
from stages.benchmarks import loaders as benchmarks
from stages.benchmarks.rows import Row, Subset
from stages.evaluate import blind
from tests.paths import real
from tests.stages.evaluate.vectors import images


def foils(n: int, foil: str) -> Subset:
    rows = tuple(Row(str(i), str(i // 2), images(1)[0], (f"a cup number {i}", foil.format(i))) for i in range(n))
    return Subset("sugarcrepe", "swap_att", "choice", "wrong", "d", rows)


def right(judged: Any) -> float:
    return float(np.mean([scores[0] > max(scores[1:]) for scores in judged]))


def test_blind_judges_find_a_giveaway_and_nothing_else() -> None:
    """A foil that always says "zebra" is found without a picture; one that is told apart by nothing is a coin."""
    assert right(blind.ngrams(foils(80, "a zebra number {}"))) == 1
    assert right(blind.rule(foils(80, "a cup number {} stands here."))) == 1
    codes = np.random.default_rng(0).integers(0, 10**6, (300, 2))
    rows = tuple(Row(str(i), str(i), None, (f"a cup {a:06d}", f"a cup {b:06d}")) for i, (a, b) in enumerate(codes))
    coin = Subset("sugarcrepe", "swap_att", "choice", "wrong", "d", rows)
    assert 0.4 < right(blind.ngrams(coin)) < 0.6 and 0.4 < right(blind.rule(coin)) < 0.6


def test_the_classifier_never_learns_from_the_picture_it_judges() -> None:
    """Foils that repeat only within one picture teach nothing about another picture's."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghij"), 8)) for _ in range(240)]
    rows = tuple(Row(str(i), str(i % 40), None, (words[i % 40], words[40 + i % 40])) for i in range(240))
    assert right(blind.ngrams(Subset("b", "s", "choice", "wrong", "d", rows))) < 0.75


def test_the_classifier_abstains_on_few_pictures() -> None:
    assert blind.ngrams(foils(10, "x {}")) == [None] * 10


class Longest:
    """A language model that finds long texts likely; it notes what it read."""

    read: ClassVar[list[str]] = []
    open: ClassVar[int] = 0

    def __init__(self, model: str, **_: Any) -> None:
        type(self).open += 1

    def likelihood(self, texts: list[str]) -> list[float]:
        self.read.extend(texts)
        return [float(len(text)) for text in texts]

    def close(self) -> None:
        type(self).open -= 1


def test_a_language_model_judges_each_text_once(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("stages.language_models.vllm.Engine", Longest)
    asked = [foils(30, "a cup number {} that is longer"), foils(30, "a cup")]
    judge = blind.likelihood("some/model", asked, tmp_path, silent)
    assert right(judge(asked[0])) == 0 and right(judge(asked[1])) == 1
    texts = {text for subset in asked for row in subset.rows for text in row.texts}
    assert sorted(Longest.read) == sorted(texts) and Longest.open == 0
    monkeypatch.setattr(
        "stages.language_models.vllm.Engine", None
    )  # what was read is kept: no engine is needed any more
    assert blind.likelihood("some/model", asked, tmp_path, silent)(asked[0]) == judge(asked[0])


def test_a_language_model_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "vllm.py").write_text("raise ImportError('No module named vllm')")
    with pytest.raises(UserError, match=r"^evaluate: vLLM with model .*vllm.*evaluate.likelihood=null"):
        blind.likelihood("data/language_model", [foils(2, "x {}")], tmp_path, silent)


def test_the_blind_rule_has_its_documented_score_on_sugarcrepe() -> None:
    """Documented: add_att 99.8, add_obj 99.4, replace_rel 73.1, swap_att 62.9 (the rest is a coin, so within 1)."""
    found = {
        subset.name: 100 * right(blind.rule(subset))
        for subset in benchmarks.folder_readers()["sugarcrepe"](real("benchmarks/sugarcrepe"))
    }
    for name, value in {"add_att": 99.8, "add_obj": 99.4, "replace_rel": 73.1, "swap_att": 62.9}.items():
        assert found[name] == pytest.approx(value, abs=1)
