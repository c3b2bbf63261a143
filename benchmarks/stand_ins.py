"""What benchmarks ask of a language model where no captions and no model are at hand."""

import json
import random
from collections.abc import Iterable
from typing import Any

THINGS = ("dog", "cat", "boy", "girl", "horse", "bird", "chair", "car", "house", "tree", "ball", "boat", "cup", "hat")
COLOURS = ("red", "blue", "green", "white", "black", "brown", "yellow", "pink")
PLACES = ("garden", "street", "field", "kitchen", "park", "harbour", "hall", "yard")
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")


def captions(count: int, seed: int = 0) -> list[str]:
    """Distinct captions."""
    rng, found = random.Random(seed), dict[str, None]()
    while len(found) < count:
        one, two = rng.sample(THINGS, 2)
        first, second = rng.sample(COLOURS, 2)
        place, number = rng.choice(PLACES), rng.randrange(10_000)
        found[f"A {first} {one} stands before a {second} {two} in {place} {number}."] = None
    return list(found)


def chat_tokenizer(texts: Iterable[str], size: int) -> Any:
    """A tokenizer with a chat template that learned 2,000 tokens of the texts; made-up words fill it to `size`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["</s>", *ROLES]
    trainer = trainers.BpeTrainer(vocab_size=min(size, 2000), special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    told = json.loads(tokenizer.to_str())
    words = told["model"]["vocab"]
    for number in range(len(words), size):
        words[f"\u0120word{number}"] = number  # of no merge, so it is only ever written, never read
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(told)),
        eos_token="</s>",  # noqa: S106
        additional_special_tokens=list(ROLES),
    )
    fast.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    return fast
