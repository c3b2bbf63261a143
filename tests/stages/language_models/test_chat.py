"""Chats by five templates, written from the documented formats of real models: how each treats the system turn, the
date, thinking, and the space around a text.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from jinja2 import TemplateError

from stages.language_models import chat
from stages.language_models.base import Message, Request

PREFIX: list[Message] = [
    {"role": "system", "content": "Swap two nouns."},
    {"role": "user", "content": "A dog chases a cat."},
    {"role": "assistant", "content": "A cat chases a dog."},
]

LLAMA_3_2 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" + system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""

GEMMA_2 = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
    {{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"""

MISTRAL = """{{ bos_token }}{% for message in messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
    {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif %}
{%- if message['role'] == 'user' %}{{- '[INST] ' + message['content'] + ' [/INST]' }}
{%- elif message['role'] == 'assistant' %}{{- ' ' + message['content'] + eos_token }}
{%- else %}{{- raise_exception('Only user and assistant roles are supported!') }}{%- endif %}
{%- endfor %}"""

QWEN_3 = """{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""

GRANITE = """{%- set today = strftime_now('%B %d, %Y') %}
{%- for message in messages %}
    {{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' }}
    {%- if message['role'] == 'system' %}{{- "Today's Date: " + today + '.\\n' }}{%- endif %}
    {{- message['content'] + '<|end_of_text|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_of_role|>assistant' + (' {"thinking": true}' if thinking else '') + '<|end_of_role|>' }}
{%- endif %}"""

TEMPLATES: dict[str, tuple[str, list[str]]] = {
    "llama": (LLAMA_3_2, ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]),
    "gemma": (GEMMA_2, ["<bos>", "<end_of_turn>", "<start_of_turn>"]),
    "mistral": (MISTRAL, ["<s>", "</s>"]),
    "qwen": (QWEN_3, ["<|endoftext|>", "<|im_end|>", "<|im_start|>"]),
    "granite": (GRANITE, ["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"]),
}


@pytest.fixture(scope="module")
def tokenizer() -> Callable[[str], Any]:
    """A tokenizer of bytes and some merges, with the special tokens and the template of a model."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    def made(name: str) -> Any:
        template, special = TEMPLATES[name]
        inner = Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=special, initial_alphabet=alphabet)
        inner.train_from_iterator(["A dog chases a cat.\n\nuser assistant system model"] * 9, trainer)
        fast = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=special[0], eos_token=special[1])
        fast.chat_template = template
        return fast

    return made


def said(captions: list[str]) -> list[list[Message]]:
    return [[{"role": "user", "content": caption}] for caption in captions]


def texts(tokenizer: Any, captions: list[str], prefix: list[Message] = PREFIX, **arguments: Any) -> list[str]:
    return [tokenizer.decode(ids) for ids in chat.encode(tokenizer, prefix, said(captions), arguments)]


CAPTIONS = [
    "user",
    "A red cup is on a blue table.",
    "system\n",
    "assistant",
    "model",
    "Today",
    "A dog chases a cat.",
    ". ",
]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("examples", [0, 1])
def test_a_chat_is_what_the_template_writes_whatever_the_first_caption_is(
    tokenizer: Any, name: str, examples: int
) -> None:
    model = tokenizer(name)
    prefix = PREFIX[: 1 + 2 * examples]
    for first in CAPTIONS:
        captions = [first, *CAPTIONS]
        got = chat.encode(model, prefix, said(captions), {})
        alone = [chat.encode(model, prefix, [one], {})[0] for one in said(captions)]
        assert got == alone
        for ids, caption in zip(got, captions, strict=True):
            turns = [*prefix, {"role": "user", "content": caption.strip()}]
            turns = chat.without_system(turns) if name in ("gemma", "mistral") else turns
            whole = model.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, strftime_now=lambda form: chat.DATE.strftime(form),
                enable_thinking=False, date_string="26 Jul 2024",
            )  # fmt: skip
            assert ids == model(whole, add_special_tokens=False)["input_ids"]
            assert whole.count("Swap two nouns.") == 1


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_repair_is_a_further_turn_and_stands_among_others_in_its_place(tokenizer: Any, name: str) -> None:
    model = tokenizer(name)
    repair = Request("A dog.", 1, 0, 9, rejected="A dog. ", told="This is the caption unchanged.").turns
    chats = [*said(["A cup.", "user"]), repair, *said(["A boat."])]
    got = chat.encode(model, PREFIX, chats, {})
    assert got == [chat.encode(model, PREFIX, [one], {})[0] for one in chats]
    text = model.decode(got[2])
    assert text.index("Swap two nouns.") < text.rindex("A dog.") < text.index("This is the caption unchanged.")
    assert text.count("A dog.") == 2 and text.count("Swap two nouns.") == 1
    assert text.endswith(model.decode(got[0])[-8:])


@pytest.mark.parametrize("name", ["llama", "granite"])
def test_the_day_a_response_is_asked_for_changes_no_prompt(tokenizer: Any, name: str) -> None:
    (text,) = texts(tokenizer(name), ["A boat."])
    assert ("26 Jul 2024" in text or "July 26, 2024" in text) and str(datetime.now().year) not in text
    if name == "llama":
        assert "Today Date: 1 May 2025" in texts(tokenizer(name), ["A boat."], date_string="1 May 2025")[0]


@pytest.mark.parametrize(
    ("name", "off", "on", "switch"),
    [
        ("qwen", "assistant\n<think>\n\n</think>\n\n", "assistant\n", "enable_thinking"),
        ("granite", "assistant<|end_of_role|>", 'assistant {"thinking": true}<|end_of_role|>', "thinking"),
    ],
)
def test_thinking_is_off_unless_it_is_wanted(tokenizer: Any, name: str, off: str, on: str, switch: str) -> None:
    model = tokenizer(name)
    assert texts(model, ["A boat."])[0].endswith(off)
    wanted = model.decode(chat.encode(model, PREFIX, said(["A boat."]), {switch: True})[0])
    assert wanted.endswith(on) and not wanted.endswith(off)


@pytest.mark.parametrize("name", ["gemma", "mistral"])
def test_the_rule_goes_into_the_first_user_turn_where_no_system_turn_is_allowed(tokenizer: Any, name: str) -> None:
    (text,) = texts(tokenizer(name), ["A boat."])
    assert "Swap two nouns.\n\nA dog chases a cat." in text and "A cat chases a dog." in text
    (bare,) = texts(tokenizer(name), ["A boat."], PREFIX[:1])
    assert "Swap two nouns.\n\nA boat." in bare


def test_a_template_that_drops_the_system_turn_without_a_word_still_gets_the_rule(tokenizer: Any) -> None:
    model = tokenizer("qwen")
    model.chat_template = "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.content }}{% endfor %}"
    assert texts(model, ["A boat."])[0].startswith("<|im_start|>Swap two nouns.\n\nA dog chases a cat.")


def test_a_template_that_changes_the_caption_is_followed(tokenizer: Any) -> None:
    model = tokenizer("qwen")
    model.chat_template = "{% for m in messages %}<|im_start|>{{ m.content | replace('dog', 'DOG') }}{% endfor %}"
    assert texts(model, ["A dog.", "Two dogs."])[1].endswith("<|im_start|>Two DOGs.")


def test_a_template_that_takes_no_chat_at_all_says_so(tokenizer: Any) -> None:
    model = tokenizer("qwen")
    model.chat_template = "{{ raise_exception('no chats') }}"
    with pytest.raises(TemplateError, match="no chats"):
        texts(model, ["A boat."])


def test_every_token_that_steers_is_known_as_special(tokenizer: Any) -> None:
    for name, (_, special) in TEMPLATES.items():
        assert set(chat.special_tokens(tokenizer(name))) >= set(special)


def test_no_captions_need_no_template() -> None:
    assert chat.encode(None, PREFIX, [], {}) == []


@pytest.mark.parametrize(
    ("name", "bos", "start"),
    [
        ("llama", "<|begin_of_text|>", "<|begin_of_text|>"),
        ("gemma", "<bos>", "<bos>"),
        ("qwen", "<|im_start|>", "<|endoftext|>"),  # as of SmolLM2
        ("qwen", None, "<|endoftext|>"),
        ("granite", None, "<|start_of_role|>"),  # its last token, by the fixture
    ],
)
def test_a_text_of_its_own_begins_as_no_turn_of_a_chat(tokenizer: Any, name: str, bos: str | None, start: str) -> None:
    model = tokenizer(name)
    model.bos_token = bos
    assert model.convert_ids_to_tokens(chat.text_start(model)) == start
