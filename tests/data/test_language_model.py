"""The committed language model of the built-in world: small, complete, and able to answer its own prompts."""

import pytest

from stages.generate.prompts import NOT_APPLICABLE, load
from stages.world.language import REWRITES, content_words, parse, rewrites
from stages.world.scenes import WIDE
from tests.paths import ROOT

MODEL = ROOT / "data" / "language_model"
CAPTION = "A red circle is above a blue star."


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    """One greedy reply per type behind the demo's prompt of four examples."""
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL, dtype="float32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    found = {}
    for kind, prompt in load("scenes", tuple(REWRITES), 4).items():
        messages = [*prompt.prefix(4), {"role": "user", "content": CAPTION}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        output = model.generate(**ids, max_new_tokens=40, do_sample=False)
        found[kind] = tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    return found


def test_it_is_small_and_complete() -> None:
    files = {path.name: path.stat().st_size for path in MODEL.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "README.md"} <= set(files)
    assert sum(files.values()) <= 4 * 2**20


def test_most_of_its_replies_are_the_edit_asked_for(answers: dict[str, str]) -> None:
    right = 0
    for kind, reply in answers.items():
        facts = parse(reply)
        right += facts is not None and facts in rewrites(parse(CAPTION), kind, WIDE)
    assert right >= 4, answers


def test_swaps_keep_the_words(answers: dict[str, str]) -> None:
    kept = [content_words(answers[kind]) == content_words(CAPTION) for kind in list(REWRITES)[:3]]
    assert sum(kept) >= 2, answers


@pytest.mark.parametrize("kind", REWRITES)
def test_every_example_of_the_prompts_is_right(kind: str) -> None:
    for example in load("scenes", [kind], 8)[kind].examples:
        options = rewrites(parse(example.caption), kind, WIDE)
        assert parse(example.negative) in options if example.negative else not options
    shown = [example.negative or NOT_APPLICABLE for example in load("scenes", [kind], 4)[kind].examples[:4]]
    assert NOT_APPLICABLE in shown, "the demo's prompt shows how to decline"
