"""Train the built-in world's language model: a small Llama that rewrites captions, from scratch, on the CPU.

    python scripts/train_language_model.py

Reads the rules in data/prompts/scenes, makes its training text from the world's own grammar (wide concepts) and writes
data/language_model: weights, tokenizer, chat template and a card. One chat is a rule, then turns of caption and reply:
the few-shot prompt that the generate stage sends, with every reply a training signal.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections import Counter
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from stages.generate.checks import NOT_APPLICABLE
from stages.generate.prompts import Prompt, load
from stages.language_models.base import Request
from stages.language_models.vllm import Engine
from stages.world.language import CATEGORY, REWRITES, Facts, content_words, describe, holds, parse, rewrites, write
from stages.world.scenes import WIDE, Scene, make_scene

ROOT = Path(__file__).parents[1]
END = "<|end|>"
SPECIAL = ("<|pad|>", END, "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
LENGTHS = (144, 352)
"""Tokens of a training chat: about three turns at first, when copying from the right caption is still to be learned,
then about ten, as many as a prompt may hold."""

CARD = """# The built-in world's language model

A small Llama (4 layers, width 128, bfloat16) that rewrites captions of the built-in world into hard negatives of five
types. `python scripts/train_language_model.py` made it from scratch, from a fixed seed, on the world's own grammar; it
knows no other language. It makes mistakes, and the checks of the generate stage are there to catch them.

Prompt: the rule of a type (system), then captions (user) and replies (assistant) in turns, then the caption. A reply is
one line: the rewritten caption, or `not applicable`.

Measured through vLLM at temperature 0.7 behind {shots} examples, on captions of scenes it was not trained on.
Applicable: all but the captions it rightly declined. Usable: a sentence of the world, exactly the edit asked for, and
false of the scene.

| type | captions | applicable | usable of these | the others |
|---|---|---|---|---|
{rows}
"""

Example = tuple[str, str]
"""A caption and the reply."""


def examples(count: int, seed: int) -> dict[str, list[Example]]:
    """Per type, captions with a random false rewriting; those without one are thinned out to about one in eight."""
    rng = random.Random(seed)
    made: dict[str, list[Example]] = {kind: [] for kind in REWRITES}
    for i in range(count):
        scene = make_scene(f"language/{seed}/{i}", WIDE)
        facts = describe(scene, WIDE, rng)
        if facts is None or not holds(facts, scene):
            continue
        caption = write(facts)
        for kind in REWRITES:
            options = rewrites(facts, kind, WIDE)
            if kind == "swap_adjectives":
                # Exchanging like with like is the plainer edit, so it is what the model mostly sees.
                options = [option for option in options if _same_categories(caption, write(option))] or options
            if kind.startswith("swap") or (kind.startswith("replace") and rng.random() < 0.85):
                # A model this small cannot see that it has copied every word so far, so it mostly changes the first.
                options = _earliest(caption, options)
            false = [option for option in rng.sample(options, min(4, len(options))) if not holds(option, scene)]
            if false:
                made[kind].append((caption, write(false[0])))
            elif not options and rng.random() < 0.2:
                made[kind].append((caption, NOT_APPLICABLE))
    return made


def _earliest(caption: str, options: list[Facts]) -> list[Facts]:
    """Those of the same length that change the first words that any of them changes; a reshuffle has no first word."""
    changed = [_changes(caption, write(option)) for option in options]
    return [option for option, places in zip(options, changed, strict=True) if places == min(changed)]


def _changes(caption: str, other: str) -> list[int]:
    """Positions of the first two words that differ."""
    pairs = enumerate(zip(caption.split(), other.split(), strict=False))
    return [place for place, (one, two) in pairs if one != two][:2]


def _same_categories(caption: str, other: str) -> bool:
    def shape(text: str) -> list[str]:
        return [CATEGORY.get(word, "") for word in text.lower().replace(".", "").replace(",", "").split()]

    return shape(caption) == shape(other)


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE over the world's words; few merges, so most words are one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=SPECIAL[0], eos_token=END, extra_special_tokens=list(SPECIAL[2:])
    )
    fast.chat_template = TEMPLATE
    fast.model_max_length = 1024
    return fast


class Chats:
    """Endless batches of training chats: one type each, as many turns as fit, the loss on replies only."""

    def __init__(
        self, made: dict[str, list[Example]], prompts: dict[str, Prompt], tokenizer: PreTrainedTokenizerFast, seed: int
    ) -> None:
        self.rng = random.Random(seed)
        self.pad = tokenizer.pad_token_id

        def ids(text: str) -> list[int]:
            return tokenizer(text, add_special_tokens=False)["input_ids"]

        self.head = {kind: ids(f"<|system|>{prompts[kind].rule}{END}") for kind in made}
        self.turns = {
            kind: [(ids(f"<|user|>{caption}{END}<|assistant|>"), ids(f"{reply}{END}")) for caption, reply in pairs]
            for kind, pairs in made.items()
        }
        # The prompt the generate stage sends is rendered by the chat template; training must see the very same tokens.
        for kind, prompt in prompts.items():
            rendered = ids(tokenizer.apply_chat_template(prompt.prefix, tokenize=False))
            turns = [
                ids(f"<|user|>{e.caption}{END}<|assistant|>{e.negative or NOT_APPLICABLE}{END}")
                for e in prompt.examples
            ]
            assert rendered == sum(turns, self.head[kind]), "the template and the training chats differ"

    def batch(self, size: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids [B, T] and labels [B, T] with -100 where nothing is learned."""
        tokens_BT = torch.full((size, length), self.pad)
        labels_BT = torch.full((size, length), -100)
        for row in range(size):
            kind = self.rng.choice(list(REWRITES))
            tokens, labels = list(self.head[kind]), [-100] * len(self.head[kind])
            while True:
                question, answer = self.rng.choice(self.turns[kind])
                if len(tokens) + len(question) + len(answer) > length:
                    break
                tokens += question + answer
                labels += [-100] * len(question) + answer
            tokens_BT[row, : len(tokens)] = torch.tensor(tokens)
            labels_BT[row, : len(labels)] = torch.tensor(labels)
        return tokens_BT, labels_BT


def train(chats: Chats, vocabulary: int, steps: int, batch: int, lr: float, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        # At the usual 0.02 the words of one class (all nouns, all colours) first grow one common embedding in which
        # they can no longer be told apart, and copying them is never learned; the norm keeps the first logits small.
        model.model.embed_tokens.weight.normal_(0, 0.4)
        model.model.norm.weight.fill_(0.25)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, vocabulary {vocabulary}", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    warm = min(60, steps // 10 + 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, max(0.03, 1 - (step - warm) / (steps - warm)))
    )
    start = time.monotonic()
    for step in range(1, steps + 1):
        length = LENGTHS[step > 0.6 * steps]
        tokens_BT, labels_BT = chats.batch(batch // length, length)
        hidden_BTD = model.model(tokens_BT).last_hidden_state[:, :-1]
        answered_BT = labels_BT[:, 1:] != -100
        # Only reply tokens reach the output layer: half of the step's logits would be thrown away.
        logits_NV = model.lm_head(hidden_BTD[answered_BT])
        loss = torch.nn.functional.cross_entropy(logits_NV, labels_BT[:, 1:][answered_BT])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 50 == 0 or step == steps:
            print(f"step {step}/{steps}  loss {loss.item():.3f}  {time.monotonic() - start:.0f} s", flush=True)
    return model.eval()


def judge(kind: str, caption: str, reply: str, scene: Scene) -> str:
    """Why a reply is not a usable negative, or "usable"; "declined" and "declined wrongly" for "not applicable"."""
    possible = bool(rewrites(parse(caption), kind, WIDE))
    if reply == NOT_APPLICABLE:
        return "declined wrongly" if possible else "declined"
    facts = parse(reply)
    if facts is None:
        return "not a sentence of the world"
    lost, gained = content_words(caption) - content_words(reply), content_words(reply) - content_words(caption)
    edits = (sum(lost.values()), sum(gained.values()))
    if reply == caption or edits != ((1, 1) if kind.startswith("replace") else (0, 0)):
        return "not the edit asked for"
    return "still true" if holds(facts, scene) else "usable"


def accept(model: Path, prompts: dict[str, Prompt], count: int, seed: int) -> dict[str, Counter[str]]:
    """Verdicts per type on captions of unseen scenes, through vLLM as the generate stage asks it (temperature 0.7)."""
    engine = Engine(
        str(model), revision=None, temperature=0.7, top_p=1.0, seed=seed, settings={}, log=model.parent / "engine.log"
    )
    verdicts: dict[str, Counter[str]] = {}
    try:
        for kind, prompt in prompts.items():
            rng = random.Random(seed)
            asked: list[tuple[str, Scene]] = []
            for i in itertools.count():
                scene = make_scene(f"language/accept/{seed}/{kind}/{i}", WIDE)
                facts = describe(scene, WIDE, rng)
                if facts is not None and holds(facts, scene):
                    asked.append((write(facts), scene))
                if len(asked) == count:
                    break
            requests = [Request(caption, 0, i, 48) for i, (caption, _) in enumerate(asked)]
            responses = engine.respond(kind, prompt.prefix, requests)
            texts = [(response.text or "").strip() for response in responses]
            verdicts[kind] = Counter(
                judge(kind, caption, text, scene) for (caption, scene), text in zip(asked, texts, strict=True)
            )
            print(f"{kind}: {dict(verdicts[kind])}", flush=True)
            for (caption, _), text in list(zip(asked, texts, strict=True))[:4]:
                print(f"    {caption}  ->  {text}")
    finally:
        engine.close()
    (model.parent / "engine.log").unlink(missing_ok=True)
    return verdicts


def card(folder: Path, verdicts: dict[str, Counter[str]], shots: int) -> None:
    """The model's README: what it is, how it was made, how often it is right."""
    rows = []
    for kind, found in verdicts.items():
        total = sum(found.values())
        applicable = total - found["declined"]
        others = ", ".join(f"{count} {verdict}" for verdict, count in sorted(found.items()) if verdict != "usable")
        rows.append(
            f"| {kind} | {total} | {applicable} | {found['usable'] / max(1, applicable):.1%} | {others or '-'} |"
        )
    folder.joinpath("README.md").write_text(CARD.format(shots=shots, rows="\n".join(rows)), encoding="utf-8")


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Weights in bfloat16 (half the size; an engine loads them as float32), tokenizer, template."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.padding_side = "right"
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "language_model")
    parser.add_argument("--prompts", default="scenes", help="prompt set: rules to train with, examples to accept with")
    parser.add_argument("--captions", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=1920, help="tokens per step")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=1, help="another number rounds sums differently: other weights")
    parser.add_argument("--accept", type=int, default=200, help="captions per type in the card's figures")
    parser.add_argument("--shots", type=int, default=4, help="examples in the prompt of the card's figures")
    parser.add_argument("--only-accept", action="store_true", help="judge the model that is there")
    options = parser.parse_args()

    prompts = load(options.prompts, tuple(REWRITES), 8)
    if not options.only_accept:
        torch.set_num_threads(options.threads)
        start = time.monotonic()
        made = examples(options.captions, options.seed)
        print(f"{ {kind: len(pairs) for kind, pairs in made.items()} } in {time.monotonic() - start:.0f} s", flush=True)
        texts = [text for pairs in made.values() for pair in pairs[:8000] for text in pair]
        tokenizer = make_tokenizer(texts + [prompt.rule for prompt in prompts.values()] * 50)
        chats = Chats(made, prompts, tokenizer, options.seed)
        save(
            train(chats, len(tokenizer), options.steps, options.batch, options.lr, options.seed), tokenizer, options.out
        )
    shown = load(options.prompts, REWRITES, options.shots)
    card(options.out, accept(options.out, shown, options.accept, options.seed + 1), options.shots)


if __name__ == "__main__":
    main()
