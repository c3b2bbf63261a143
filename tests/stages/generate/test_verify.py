import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.errors import UserError
from stages.generate import Config
from stages.generate.backends import BACKENDS
from stages.generate.verify import Asked, Judge, calibrate
from stages.language_models.base import Backend, Corpus, Response, Settings
from stages.language_models.nli import Entailment
from tests.stages.generate.canned import canned, captions, read, work

TURNED = {
    "A dog stands on a mat.": "A mat stands on a dog.",
    "A red cup stands by a jug.": "A red jug stands by a cup.",
}


class Counting:
    """A language model that finds "yes" the likelier the fewer words of the last sentence its caption lacks."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def likelihood(self, texts: Sequence[str]) -> list[float]:
        self.read += texts
        return [self._told(text) for text in texts]

    def _told(self, text: str) -> float:
        question, _, answer = text.rpartition(" ")
        last = question.splitlines()[-1].lower().replace(".", "").replace("?", "")
        before, is_asked, after = last.partition("is it then true that: ")
        odds = 4.0 - 4.0 * sum(word not in before.split() for word in after.split()) if is_asked else 1.0
        return -50.0 + (odds if answer == "yes" else 0.0)

    def respond(self, kind: str, prefix: Any, requests: Any) -> list[Response]:
        return [Response(TURNED[request.caption], "stop") for request in requests]

    def facts(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


class CountingBackend(Backend):
    needs_prompt, repairs, is_scorer = False, False, True

    def identity(self, settings: Settings) -> str:
        return "counting 1"

    def open(self, settings: Settings, corpus: Corpus, log: Path) -> Counting:
        return Counting()


def test_a_language_model_is_asked_and_the_odds_of_its_next_word_count() -> None:
    model = Counting()
    same, other = Asked(model).follows([("A dog sits.", "a dog sits"), ("A dog sits.", "A cat sits.")])
    assert same == pytest.approx(1 / (1 + math.exp(-4))) and other == pytest.approx(0.5)
    assert len(model.read) == 4 and all(text.endswith((" yes", " no")) for text in model.read)
    assert Asked(model).grammatical(["A dog."]) == [pytest.approx(1 / (1 + math.exp(-1)))]


class Told:
    """A judge that knows the truth up to noise, or nothing."""

    def __init__(self, knows: bool) -> None:
        self._knows = knows

    def follows(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [((len(text) % 7) / 10 + 0.3 * (text.endswith("same") and self._knows)) for _, text in pairs]

    def grammatical(self, texts: Sequence[str]) -> list[float] | None:
        return [0.9 if not self._knows or text.startswith("A ") else 0.1 for text in texts] if self._knows else None


def test_thresholds_refuse_few_of_the_good_and_who_knows_nothing_is_told_so() -> None:
    true = [(f"A {'x' * i} c", f"A {'y' * i} c other") for i in range(40)]
    siblings = [(f"A {'x' * i} c", f"A {'y' * i} c same") for i in range(60)]
    able, unable = (calibrate(judge, true, siblings) for judge in (Told(True), Told(False)))
    told = Told(True).follows(true)
    assert sum(one > able["follows"]["threshold"] for one in told) <= 0.05 * len(true)
    assert able["follows"]["is_able"] and able["follows"]["refused"]["n"] == 60
    assert able["grammatical"]["is_able"] and able["grammatical"]["threshold"] == 0.9
    assert not unable["follows"]["is_able"] and unable["grammatical"] is None


def tiny_judge(
    folder: Path, labels: Sequence[str] = ("CONTRADICTION", "NEUTRAL", "ENTAILMENT"), scale: float = 1.0
) -> Path:
    """A model of inference from random weights, all equal at scale 0, with a tokenizer of letters."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz"])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64, id2label=dict(enumerate(labels)), label2id={n: i for i, n in enumerate(labels)},
        initializer_range=scale,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_a_model_of_inference_tells_its_own_probability_of_entailment(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tiny_judge(tmp_path / "nli")
    pairs = [("a dog sits", "a cat sits"), ("a cup", "a cup on a very long table" * 9), ("x", "y")]
    judge: Judge = Entailment(folder)
    got = judge.follows(pairs * 30)
    assert got[:3] == pytest.approx(got[-3:], abs=1e-5) and judge.grammatical(["a"]) is None
    model, tokenizer = (kind.from_pretrained(folder) for kind in (AutoModelForSequenceClassification, AutoTokenizer))
    for pair, one in zip(pairs, got, strict=False):
        with torch.no_grad():
            logits = model(**tokenizer(*pair, truncation=True, return_tensors="pt")).logits[0]
        assert one == pytest.approx(float(logits.softmax(0)[2]), abs=1e-5)


def test_what_is_no_model_of_inference_is_the_user_s_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="labels positive, negative.*label entailment.*generate.verify"):
        Entailment(tiny_judge(tmp_path / "other", ("positive", "negative")))
    with pytest.raises(UserError, match=r"generate\.verify"):
        Entailment(tmp_path)


def test_what_follows_is_rejected_and_both_probabilities_are_columns(tmp_path: Path) -> None:
    rows = captions(12)
    settings: dict[str, Any] = {"types": ["replace_nouns"], "max_reject_rate": 1.0}
    replay = {"backend": "replay", "model": str(canned(tmp_path / "r.jsonl", rows, wrong=0))}
    plain, _ = work(tmp_path, rows, "plain", **replay, **settings)
    assert {(row["follows"], row["grammatical"]) for row in read(plain)} == {(None, None)}
    folder = str(tiny_judge(tmp_path / "nli"))
    told, _ = work(tmp_path, rows, "told", **replay, **settings, verify=folder, shard_size=4)
    accepted = [row for row in read(told) if row["status"] == "accepted"]
    assert len(accepted) == 12 and all(0 < row["follows"] < 1 and row["grammatical"] is None for row in accepted)
    middle = sorted(row["follows"] for row in accepted)[5]
    half, meta = work(tmp_path, rows, "half", **replay, **settings, verify=folder, max_follows=middle)
    reasons = [row["reason"] for row in read(half)]
    assert reasons.count("follows") == sum(row["follows"] > middle for row in accepted) > 0
    assert meta["types"]["replace_nouns"]["reasons"] == {"follows": reasons.count("follows")}


def test_the_model_that_writes_may_judge_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "counting", CountingBackend())
    rows = list(zip("pq", TURNED, strict=True))
    settings: dict[str, Any] = {"backend": "counting", "model": "m", "types": ["reshuffle_order"], "verify": "own"}
    out, _ = work(tmp_path, rows, **settings, max_reject_rate=1.0)
    found = [row for row in read(out) if row["status"] == "accepted"]
    assert len(found) == 2 and all(row["follows"] > 0.9 and 0.7 < row["grammatical"] < 0.8 for row in found)
    strict, _ = work(tmp_path, rows, "strict", **settings, min_grammatical=0.75, max_reject_rate=1.0)
    assert [row["reason"] for row in read(strict)] == ["ungrammatical"] * 2


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"backend": "rules", "verify": "own"}, "verify=own needs backend vllm or ranked"),
        ({"max_follows": 0.5}, "need verify"),
        ({"min_grammatical": 0.5}, "need verify"),
    ],
)
def test_a_judge_that_cannot_be_is_refused(settings: dict[str, Any], error: str) -> None:
    with pytest.raises(ValidationError, match=error):
        Config(**settings)
