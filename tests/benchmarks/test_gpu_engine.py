"""Requests of a language model against their limit: the arithmetic, and a whole run at a tiny size."""

from pathlib import Path

import pytest

from benchmarks import gpu_engine
from benchmarks.gpu_engine import LLAMA_8B, Served, Shape, flop_and_bytes, limit
from benchmarks.stand_ins import captions, chat_tokenizer

TINY = Shape(2, 64, 64, 2, 1, 3000)


def test_the_limit_is_what_a_loop_over_tokens_counts() -> None:
    shape, asked = Shape(3, 8, 20, 4, 2, 50), Served("", 0.0, 7, 5, 4)
    flop = read = 0
    for place in range(7, 7 + 5 + 4 - 1):
        for _ in range(shape.layers):
            flop += 2 * (8 * 8 + 2 * 8 * 4 + 8 * 8)  # queries, keys and values of two heads of two, what comes out
            flop += 2 * 3 * 8 * 20
            flop += 4 * (place + 1) * 8
    flop += 4 * 2 * 8 * 50
    passes = [
        7,
        *(7 + 5 + made for made in range(1, 4)),
    ]  # the prompt's pass finds the shared; each further one all before
    read = sum(passes) * shape.layers * 2 * 2 * 2 * 2
    assert flop_and_bytes(shape, asked, 2) == (flop, read)
    assert limit(shape, asked, 1e6, 1e5) == pytest.approx(1 / (flop / 1e6 + read / 1e5))


def test_an_8b_model_has_8_billion_weights_and_writes_faster_behind_fewer_examples() -> None:
    many, few = (flop_and_bytes(LLAMA_8B, Served("", 0.0, shared, 1, 1), 2)[0] for shared in (2500, 0))
    assert 7.4e9 < few / 2 < 7.6e9  # of 8.03 billion 0.5 are the table of tokens, which is looked up
    assert many - few == 4 * 2500 * 4096 * 32
    of = {shared: limit(LLAMA_8B, Served("", 0.0, shared, 30, 16), 989e12, 4.8e12) for shared in (2500, 800)}
    assert of[800] > of[2500] > 100


def test_a_tokenizer_of_any_size_writes_every_token_and_reads_its_texts() -> None:
    texts = captions(50)
    tokenizer = chat_tokenizer(texts, 3000)
    assert len(tokenizer) == 3000 and tokenizer.decode([2999]).strip() == "word2999"
    assert tokenizer.decode(tokenizer(texts[0])["input_ids"]) == texts[0]
    assert len(set(texts)) == 50 and not set(texts) & set(captions(50, seed=1))


@pytest.mark.slow
@pytest.mark.vllm
def test_an_engine_that_fails_says_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the engine failed:\n(.*\n)*.*Error"):
        gpu_engine._engine(tmp_path, {"model": str(tmp_path / "none")}, 300)
    with pytest.raises(RuntimeError, match="more than 0 s"):
        gpu_engine._engine(tmp_path, {"model": str(tmp_path / "none")}, 0)


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.timeout(900)  # an engine starts
def test_vllm_is_asked_in_every_way(tmp_path: Path) -> None:
    found = gpu_engine.served(TINY, tmp_path, 0.1, 600, trial=16)
    assert [one.name for one in found] == [way.name for way in gpu_engine.WAYS]
    assert all(one.requests_per_s > 0 and 0 < one.reply <= gpu_engine.REPLY and one.own > 5 for one in found)
    assert found[0].shared > 1000 > found[3].shared > 100
