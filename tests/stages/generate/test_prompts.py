import ast
import csv
import json
from pathlib import Path

import pytest
import yaml

from pipeline.errors import UserError
from pipeline.negative_types import KINDS, NEGATIVE_TYPES
from stages.generate import Config, prompts
from stages.generate.checks import validate
from tests.paths import real

GOOD = {"type": "swap_nouns", "rule": "Swap.", "examples": [{"caption": "a b", "negative": "b a"},
                                                           {"caption": "a", "negative": None}]}  # fmt: skip


def write(folder: Path, content: object, kind: str = "swap_nouns") -> str:
    (folder / f"{kind}.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(folder)


def test_a_chat_is_rule_examples_caption(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert prompts.load(path, ["swap_nouns"], 2) == prompts.load(path, ["swap_nouns"])
    assert prompts.load(path, ["swap_nouns"])["swap_nouns"].prefix == [
        {"role": "system", "content": "Swap."},
        {"role": "user", "content": "a b"},
        {"role": "assistant", "content": "b a"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "not applicable"},
    ]
    assert len(prompts.load(path, ["swap_nouns"], 1)["swap_nouns"].prefix) == 3
    assert len(prompts.load(path, ["swap_nouns"], 0)["swap_nouns"].prefix) == 1


def test_the_digest_covers_what_is_told_and_nothing_else(tmp_path: Path) -> None:
    def digest(count: int, **changes: object) -> str:
        return prompts.load(write(tmp_path, {**GOOD, **changes}), ["swap_nouns"], count)["swap_nouns"].digest

    assert digest(1) == digest(1, examples=GOOD["examples"][:1])
    assert (
        len({digest(1), digest(2), digest(1, rule="Swap!"), digest(1, examples=[{"caption": "a b", "negative": "b"}])})
        == 4
    )


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({**GOOD, "type": "swap_adjectives"}, "field type"),
        ({**GOOD, "rule": ""}, "field rule"),
        ({**GOOD, "extra": 1}, "field extra"),
        ({**GOOD, "examples": [{"caption": "a"}]}, "field examples.0.negative"),
        ({**GOOD, "examples": [{"caption": 3, "negative": None}]}, "field examples.0.caption"),
        ("- [", "no valid YAML"),
        ("just text", "the file"),
    ],
)
def test_a_bad_file_is_rejected_by_name_and_field(tmp_path: Path, content: object, named: str) -> None:
    with pytest.raises(UserError) as caught:
        prompts.load(write(tmp_path, content), ["swap_nouns"])
    assert named in str(caught.value) and "swap_nouns.yaml" in str(caught.value)


def test_a_missing_file_set_or_example_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"swap_nouns\.yaml: no such file"):
        prompts.load(str(tmp_path), ["swap_nouns"])
    with pytest.raises(UserError, match="no prompt set 'nothing'.*english"):
        prompts.load("nothing", ["swap_nouns"])
    with pytest.raises(UserError, match="2 examples.*examples_per_prompt = 3"):
        prompts.load(write(tmp_path, GOOD), ["swap_nouns"], 3)


@pytest.mark.parametrize("kind", KINDS)
def test_english_has_fifty_distinct_examples_that_pass_the_checks(kind: str) -> None:
    prompt, shown = (prompts.load("english", [kind], count)[kind] for count in (None, 50))
    captions = [example.caption for example in prompt.examples]
    assert len(set(captions)) == len(captions) >= 50
    assert 1 <= sum(example.negative is None for example in shown.examples) <= 10
    assert any(example.negative is None for example in prompt.examples[:3])
    for example in prompt.examples:
        if example.negative is not None:
            verdict = validate(kind, example.caption, example.negative)
            assert (verdict.status, verdict.text) == ("accepted", example.negative), (example, verdict)


@pytest.mark.parametrize("kind", NEGATIVE_TYPES)
def test_scenes_examples_pass_the_checks(kind: str) -> None:
    prompt = prompts.load("scenes", [kind])[kind]
    for example in prompt.examples:
        if example.negative is not None:
            assert validate(kind, example.caption, example.negative).status == "accepted", example


def test_no_example_shares_a_caption_with_a_benchmark() -> None:
    taken = set()
    for path in real("benchmarks/sugarcrepe").glob("*.json"):
        for row in json.loads(path.read_text()).values():
            taken |= {row["caption"], row["negative_caption"]}
    for path in real("benchmarks/valse").glob("*.json"):
        for row in json.loads(path.read_text()).values():
            taken |= {row["caption"], row["foil"]}
    with real("formats/neg_clip_valid.tsv").open(newline="") as handle:
        for row in csv.DictReader(handle, delimiter="\t"):
            taken |= {row["title"], *ast.literal_eval(row["neg_caption"])}
    assert len(taken) > 20_000

    def plain(text: str) -> str:
        return " ".join("".join(char if char.isalnum() else " " for char in text.lower()).split())

    taken = {plain(text) for text in taken}
    for prompt in prompts.load("english", KINDS).values():
        for example in prompt.examples:
            for text in (example.caption, example.negative):
                assert text is None or len(text.split()) < 4 or plain(text) not in taken, text


def test_the_rendered_prompt_is_the_chat_a_caption_gets() -> None:
    config = Config(prompts="scenes", examples_per_prompt=2)
    shown = prompts.render_prompt(config, "swap_nouns", "A red circle.")
    told = prompts.load("scenes", ["swap_nouns"], 2)["swap_nouns"]
    assert shown.startswith(f"[system]\n{told.rule}") and shown.endswith("[user]\nA red circle.\n")
    assert shown.count("[assistant]") == 2
    with pytest.raises(UserError, match="no type 'swap'.*swap_nouns.*paraphrase"):
        prompts.render_prompt(config, "swap", "A red circle.")
    with pytest.raises(UserError, match="backend rules reads no prompt; expected vllm or openai"):
        prompts.render_prompt(Config(backend="rules"), "swap_nouns", "A red circle.")


@pytest.mark.parametrize("text", ["rule: 2001-99-99", "[" * 3000, "&a [*a]", "rule: !!bool x"])
def test_a_hostile_prompt_file_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "swap_nouns.yaml").write_text(text)
    with pytest.raises(UserError, match="no valid YAML"):
        prompts.load(str(tmp_path), ["swap_nouns"])


def test_the_prompts_table_has_the_text_that_each_digest_stands_for() -> None:
    config = Config(backend="vllm", types=("swap_nouns", "replace_nouns"), examples_per_prompt=2)
    found = {row["digest"]: row["text"] for row in prompts.rows(config)}
    for kind, prompt in prompts.prompts_of(config).items():
        asked = prompts.render_prompt(config, kind, "A dog.")
        assert asked == found[prompts.prompt_digest(prompt)] + "\n[user]\nA dog.\n"
    assert prompts.rows(Config(backend="rules")) == []
