import pytest
from pydantic import ValidationError

from pipeline.negative_types import NEGATIVE_TYPES
from stages.generate import Config


def test_placement_stays_out_of_the_identity() -> None:
    plain = Config().identity()
    moved = Config(engine={"tensor_parallel_size": 2}, base_url="http://elsewhere", concurrency=3, timeout=1)
    assert plain == moved.identity() != Config(temperature=0.1).identity()


def test_types_are_each_once_in_the_order_used_everywhere() -> None:
    assert Config().types == NEGATIVE_TYPES
    assert Config(types=tuple(reversed(NEGATIVE_TYPES))).types == NEGATIVE_TYPES
    assert Config(types=("swap_nouns",), paraphrases=True).kinds == ("swap_nouns", "paraphrase")
    with pytest.raises(ValidationError, match="a type stands twice"):
        Config(types=("swap_nouns", "swap_nouns"))
    with pytest.raises(ValidationError, match="one of reshuffle_order"):
        Config(types=("swap_verbs",))


def test_likelihood_needs_a_model_that_tells_it() -> None:
    assert Config(likelihood=True).likelihood
    with pytest.raises(ValidationError, match="likelihood needs backend vllm or ranked; got rules"):
        Config(likelihood=True, backend="rules")


def test_arguments_of_the_chat_template_are_data_and_part_of_the_identity() -> None:
    assert Config().identity() != Config(chat_template={"enable_thinking": True}).identity()
    with pytest.raises(ValidationError, match="tokenize is no argument of a chat template"):
        Config(chat_template={"tokenize": True})
    with pytest.raises(ValidationError, match="names code"):
        Config(chat_template={"x": "os.system"})


def test_a_model_beside_a_backend_without_one_is_refused() -> None:
    for backend in ("rules", "given"):
        with pytest.raises(ValidationError, match=f"model=big is of no use to backend {backend}"):
            Config(backend=backend, model="big")
        assert Config(backend=backend).model == Config().model
    assert Config(backend="ranked", model="big").model == "big"


def test_only_a_model_that_samples_gives_several_texts() -> None:
    assert Config(samples=4).identity() != Config().identity()
    with pytest.raises(ValidationError, match="samples=4 needs backend vllm or openai; got ranked"):
        Config(backend="ranked", samples=4)
