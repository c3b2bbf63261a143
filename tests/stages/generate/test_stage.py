import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline import tables
from pipeline.artifact import Artifact, Manifest
from pipeline.errors import UserError
from pipeline.schema import NEGATIVE_TYPES, NEGATIVES, PAIRS, PAIRS_NEGATIVES
from pipeline.stage import silent
from stages.generate import backends as generator
from stages.generate import card
from stages.generate import stage as generate
from stages.generate.candidates import Work
from stages.generate.replies import caption_key
from stages.language_models.vllm import cause
from tests.listening import LOOPBACK, listening
from tests.paths import ROOT

THINGS = ("dog", "cat", "boy", "girl", "horse", "bird", "chair", "car", "house", "tree", "ball", "boat")
COLOURS = ("red", "blue", "green", "white", "black", "brown", "yellow")


def pairs(home: Path, rows: list[tuple[str, str]]) -> Artifact:
    """A pairs artifact of (picture, caption) rows, as ingest leaves it."""
    folder = home / "store" / "pairs" / hashlib.sha256(repr(rows).encode()).hexdigest()[:16]
    facts = {"image_uri": "a.jpg", "image_sha256": "0" * 64, "phash": 0, "width": 1, "height": 1, "source": "csv",
             "split": "train", "scene": None}  # fmt: skip
    table = [
        {"pair_id": caption_key(f"{image}\0{caption}"), "image_key": image, "caption": caption, **facts}
        for image, caption in rows
    ]
    part = tables.part(folder, 0)
    if not part.exists():  # another process of this test may have made it, and be reading
        tables.write(part, [{name: row[name] for name in PAIRS.names if name in row} for row in table], PAIRS)
    content = {part.name: hashlib.sha256(part.read_bytes()).hexdigest()}
    manifest = {
        "format": 1, "kind": "pairs", "stage": "ingest", "stage_version": 1, "fingerprint": folder.name, "config": {},
        "inputs": {}, "outside": {}, "meta": {}, "rows": {}, "files": content, "packages": {}, "git": {},
        "hardware": {}, "started": "", "finished": "",
    }  # fmt: skip
    return Artifact(folder, Manifest.model_validate(manifest))


def captions(count: int) -> list[tuple[str, str]]:
    rng = random.Random(0)
    rows = []
    for index in range(count):
        one, two = rng.sample(THINGS, 2)
        first, second = rng.sample(COLOURS, 2)
        rows.append((f"p{index // 2}", f"A {first} {one} stands before a {second} {two} on day {index}."))
    return rows


def canned(path: Path, rows: list[tuple[str, str]], wrong: float = 0.3) -> Path:
    """Replies to all captions; some of them bad, the repairs good."""
    rng = random.Random(1)
    lines = []
    for _, caption in rows:
        words = caption.rstrip(".").split()
        swapped = [*words[:2], words[7], *words[3:7], words[2], *words[8:]]
        mixed = [words[0], words[6], *words[2:6], words[1], *words[7:]]
        replaced = [*words[:2], "zebra", *words[3:]]
        recoloured = [words[0], "pink", *words[2:]]
        good = dict(zip(NEGATIVE_TYPES, (swapped, swapped, mixed, replaced, recoloured), strict=True))
        for kind, answer in good.items():
            text = " ".join(answer) + "."
            if rng.random() < wrong:
                bad = rng.choice((caption, "Sure, here it is: " + text, "not applicable", "A dog."))
                lines.append({"type": kind, "caption": caption, "reply": bad, "reply_tokens": 5, "prompt_tokens": 50})
                lines.append({"type": kind, "caption": caption, "reply": text, "attempt": 1, "reply_tokens": 6})
            else:
                lines.append({"type": kind, "caption": caption, "reply": text, "reply_tokens": 7, "prompt_tokens": 50})
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def work(home: Path, rows: list[tuple[str, str]], name: str = "f", **settings: Any) -> tuple[Path, dict[str, Any]]:
    """Run the stage into `<home>/store/negatives/<name>.partial`, as the road does."""
    out = home / "store" / "negatives" / f"{name}.partial"
    out.mkdir(parents=True, exist_ok=True)
    return out, generate.run(generate.Config(**settings), {"pairs": pairs(home, rows)}, out, silent)


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in tables.files(out)}


def read(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = tables.read(out).to_pylist()
    return rows


def reply_rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def kept(home: Path, kind: str = "*") -> dict[str, bytes]:
    return {str(p.relative_to(home)): p.read_bytes() for p in home.glob(f"replies/{kind}/*/*.parquet")}


# -- what comes out ----------------------------------------------------------------------------------------------------


def test_every_candidate_is_a_row_and_repairs_follow_refusals(tmp_path: Path) -> None:
    rows = captions(40)
    out, meta = work(tmp_path, rows, backend="replay", model=str(canned(tmp_path / "r.jsonl", rows)))
    found = read(out)
    assert tables.read(out).schema.equals(NEGATIVES)
    by_pair: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in found:
        by_pair.setdefault((row["pair_id"], row["type"]), []).append(row)
    assert len(by_pair) == 40 * 5
    for tries in by_pair.values():
        assert [row["attempt"] for row in tries] == list(range(len(tries)))
        assert all(row["status"] == "rejected" and row["reason"] and row["raw_reply"] for row in tries[:-1])
        assert len(tries) == 1 or tries[-1]["status"] == "accepted"
        assert (tries[-1]["reason"] is None) == (tries[-1]["status"] != "rejected")
    statuses = Counter(tries[-1]["status"] for tries in by_pair.values())
    assert statuses["accepted"] > 170 and statuses["not_applicable"] > 5 and statuses["rejected"] == 0
    assert {row["reason"] for row in found} == {None, "identical", "chatter", "length"}
    assert sum(entry["candidates"].get("rejected", 0) for entry in meta["types"].values()) == sum(
        row["status"] == "rejected" for row in found
    )
    for kind, paid in meta["paid"].items():
        assert paid["replies"] == sum(row["type"] == kind for row in found)
        assert paid["reply_tokens"] == sum(row["reply_tokens"] for row in found if row["type"] == kind)
    order = [(row["pair_id"], NEGATIVE_TYPES.index(row["type"]), row["attempt"]) for row in found]
    assert order == sorted(order)


def test_the_card_says_what_the_table_holds(tmp_path: Path) -> None:
    rows = captions(60)
    out, meta = work(tmp_path, rows, backend="replay", model=str(canned(tmp_path / "r.jsonl", rows)))
    page = (out / "card.md").read_text()
    for kind, entry in meta["types"].items():
        assert f"| {kind} | {entry['pairs']['accepted']} |" in page
        assert f"| {kind} | identical | {entry['reasons']['identical']} |" in page
        assert f"| {kind} | ngrams | {meta['blind'][kind]['ngrams']['n']} |" in page
        shown = page.split(f"### {kind}\n")[1].split("###")[0]
        assert shown.count("\n| A ") == min(50, entry["pairs"]["accepted"])
    assert "<details>" in (out / "card.html").read_text()


def test_captions_are_text_in_the_card(tmp_path: Path) -> None:
    told = {"model": "<script>", "captions": 1, "types": {}, "blind": {}, "paid": {}}
    hostile = "a `b` ![c](d) | <script>\n# e"
    given = pairs(tmp_path, [("p", hostile)])
    row = {"pair_id": caption_key(f"p\0{hostile}"), "type": "swap_nouns", "status": "accepted", "text": hostile}
    empty = {field.name: None if field.nullable else "" if "string" in str(field.type) else 0 for field in NEGATIVES}
    row = empty | row
    tables.write(tables.part(tmp_path / "negatives", 0), [row], NEGATIVES)
    card.write(tmp_path / "negatives", given.path, told, generate.Config(backend="rules").model_dump(mode="json"))
    for name in ("card.md", "card.html"):
        page = (tmp_path / "negatives" / name).read_text()
        assert "<script>" not in page and "&lt;script&gt;" in page
    shown = (tmp_path / "negatives" / "card.md").read_text()
    assert r"a \`b\` !\[c\](d) \| &lt;script&gt; \# e" in shown


def test_refining_drops_what_text_gives_away_and_asks_nothing(tmp_path: Path) -> None:
    rows = captions(200)
    settings: dict[str, Any] = {"backend": "replay", "model": str(canned(tmp_path / "r.jsonl", rows)), "shard_size": 50}
    plain, _ = work(tmp_path, rows, "plain", **settings)
    before = kept(tmp_path)
    out, meta = work(tmp_path, rows, "refined", **settings, refine="drop")
    assert kept(tmp_path) == before
    # "zebra" and "pink" stand in every replacement and in no caption: nothing of them survives
    assert meta["types"]["replace_nouns"]["pairs"]["dropped"] > 0.9 * meta["blind"]["replace_nouns"]["ngrams"]["n"]
    changed = [(old, new) for old, new in zip(read(plain), read(out), strict=True) if old != new]
    assert changed and all({**new, "status": "accepted", "reason": None} == old for old, new in changed)
    assert {new["reason"] for _, new in changed} == {"blind"}


def test_a_negative_of_one_picture_may_be_a_caption_of_another(tmp_path: Path) -> None:
    rows = [("p1", "A dog chases a cat."), ("p2", "A dog chases a cat."), ("p2", "A cat chases a dog.")]
    path = tmp_path / "r.jsonl"
    path.write_text(
        "\n".join(
            json.dumps({"type": "swap_nouns", "caption": caption, "reply": reply})
            for caption, reply in ((rows[1][1], rows[2][1]), (rows[2][1], "not applicable"))
        )
    )
    out, meta = work(tmp_path, rows, backend="replay", model=str(path), types=["swap_nouns"], repair_attempts=0)
    reasons = {(row["pair_id"], row["reason"]) for row in read(out) if row["raw_reply"] == "A cat chases a dog."}
    assert reasons == {
        (caption_key("p1\0A dog chases a cat."), None),
        (caption_key("p2\0A dog chases a cat."), "other_caption"),
    }
    assert meta["captions"] == 2


def test_negatives_that_the_source_brought_are_typed_judged_and_kept(tmp_path: Path) -> None:
    caption = "A red dog stands before a blue cat."
    brought = [
        "A red cat stands before a blue dog.",  # nouns
        "A blue dog stands before a red cat.",  # adjectives
        "A red horse stands before a blue cat.",
        "A red zebra stands before a blue cat.",  # of a type that is taken
        "A red dog stands before a blue cat .",  # nothing changed
    ]
    artifact = pairs(tmp_path, [("p", caption), ("q", "A boy sits.")])
    given = [{"pair_id": caption_key(f"p\0{caption}"), "text": text, "origin": "x"} for text in brought]
    config = generate.Config(backend="given", max_reject_rate=1.0)
    out = tmp_path / "store" / "negatives" / "f.partial"
    with pytest.raises(UserError, match="brought no negatives"):
        generate.run(config, {"pairs": artifact}, out, silent)
    tables.write(tables.part(artifact.path / "pairs_negatives", 0), given, PAIRS_NEGATIVES)
    generate.run(config, {"pairs": artifact}, out, silent)
    found = {row["raw_reply"]: (row["type"], row["status"], row["reason"]) for row in read(out)}
    assert found == dict(
        zip(
            brought,
            [
                ("swap_nouns", "accepted", None),
                ("swap_adjectives", "accepted", None),
                ("replace_nouns", "accepted", None),
                ("replace_nouns", "rejected", "type_taken"),
                ("swap_nouns", "rejected", "identical"),
            ],
            strict=True,
        )
    )
    assert {row["model"] for row in read(out)} == {"given"}
    shutil.rmtree(out)
    generate.run(config.model_copy(update={"types": ("swap_nouns",)}), {"pairs": artifact}, out, silent)
    assert {row["raw_reply"] for row in read(out) if row["status"] == "accepted"} == {brought[0]}


def test_paraphrases_come_from_the_same_pass_when_they_are_wanted(tmp_path: Path) -> None:
    rows = [("p", "A dog and a cat sit in the garden."), ("q", "A bike leans on a car.")]
    out, meta = work(tmp_path, rows, backend="rules", types=["swap_nouns"], paraphrases=True)
    said = {row["pair_id"]: row["text"] for row in read(out) if row["type"] == "paraphrase"}
    assert len(said) == 2 and meta["types"]["paraphrase"]["pairs"]["accepted"] == 2
    assert "### paraphrase" in (out / "card.md").read_text() and "paraphrase" not in meta["blind"]


def test_reweighting_keeps_the_rows_and_writes_weights(tmp_path: Path) -> None:
    rows = captions(200)
    settings: dict[str, Any] = {"backend": "replay", "model": str(canned(tmp_path / "r.jsonl", rows))}
    plain, _ = work(tmp_path, rows, "plain", **settings)
    out, _ = work(tmp_path, rows, "weighed", **settings, refine="reweight")
    weighed = read(out)
    assert [{**row, "weight": 1.0} for row in weighed] == read(plain)
    told = [row["weight"] for row in weighed if row["type"] == "replace_nouns" and row["status"] == "accepted"]
    assert len(told) > 100 and sum(told) < 0.1 * len(told)


def test_no_types_make_an_empty_table_without_a_model(tmp_path: Path) -> None:
    config = {"types": [], "model": "data/nothing_there"}
    assert generate.outside(generate.Config(**config)) == {}
    out, meta = work(tmp_path, captions(4), **config)
    assert tables.read(out).num_rows == 0 and meta["types"] == {}


def test_too_many_refusals_fail_the_stage_and_keep_the_replies(tmp_path: Path) -> None:
    rows = captions(20)
    path = canned(tmp_path / "r.jsonl", rows, wrong=1.0)
    settings: dict[str, Any] = {"backend": "replay", "model": str(path), "repair_attempts": 0}
    with pytest.raises(UserError, match=r"generate: \d+ of 100 negatives rejected .*max_reject_rate"):
        work(tmp_path, rows, **settings)
    before = kept(tmp_path)
    assert before
    work(tmp_path, rows, **settings, max_reject_rate=1.0)
    assert kept(tmp_path) == before


# -- nothing lost, nothing paid twice ----------------------------------------------------------------------------------


def test_new_captions_ask_only_themselves_and_changed_checks_nothing(tmp_path: Path) -> None:
    rows = captions(60)
    path = canned(tmp_path / "r.jsonl", rows, wrong=0)
    settings: dict[str, Any] = {"backend": "replay", "model": str(path), "shard_size": 16}
    work(tmp_path, rows[:40], "one", **settings)
    before = kept(tmp_path)
    out, _ = work(tmp_path, rows, "two", **settings)
    after = kept(tmp_path)
    assert before.items() <= after.items() and len(after) > len(before)
    new = [row["caption"] for name in after.keys() - before.keys() for row in reply_rows(tmp_path / name)]
    assert Counter(new) == Counter([caption for _, caption in rows[40:]] * 5)
    shutil.rmtree(out)
    path.write_text(path.read_text())  # same content: the source is the same
    work(tmp_path, rows, "three", **settings, max_reject_rate=0.4)
    assert kept(tmp_path) == after


def test_one_changed_byte_in_a_prompt_is_another_source_for_that_type_alone(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(ROOT / "data" / "prompts" / "english", folder)
    config = generate.Config(backend="openai", model="m", prompts=str(folder))

    def sources() -> dict[str, str]:
        from stages.generate.prompts import load

        prompts = load(str(folder), NEGATIVE_TYPES)
        return {kind: repr(generator.source(config, prompts[kind], {})) for kind in NEGATIVE_TYPES}

    before, outside = sources(), generate.outside(config)
    path = folder / "swap_nouns.yaml"
    data = yaml.safe_load(path.read_text())
    data["examples"][0]["caption"] += "!"
    path.write_text(yaml.safe_dump(data))
    after, outside_after = sources(), generate.outside(config)
    assert [kind for kind in NEGATIVE_TYPES if before[kind] != after[kind]] == ["swap_nouns"]
    assert {name for name in outside if outside[name] != outside_after[name]} == {"prompt swap_nouns"}


WORKER = """
import json, os, sys, time
from pathlib import Path

sys.path.insert(0, {root!r})
from pipeline.stage import silent
from stages.generate import card
from stages.generate import stage as generate
from stages.generate import backends as generator
from stages.language_models.base import Replay
from stages.generate.replies import Replies
from tests.stages.generate.test_stage import captions, pairs

reply, add = Replay.reply, Replies.add

def slow(*arguments):
    time.sleep({pause})
    return reply(*arguments)

def counted(self, asks, *rest):
    with open({log!r}, "a") as log:
        log.write(f"{{len(asks)}}\\n")
    add(self, asks, *rest)

Replay.reply, Replies.add = slow, counted
home = Path({home!r})
out = home / "store" / "negatives" / "f.partial"
out.mkdir(parents=True, exist_ok=True)
config, inputs = generate.Config(**{settings!r}), {{"pairs": pairs(home, captions(240))}}
{act}
"""
RUN = "generate.run(config, inputs, out, silent)"
ASSIST = "generate.assist(config, inputs, out, silent)"


def start(home: Path, log: Path, settings: dict[str, Any], act: str, pause: float) -> subprocess.Popen[bytes]:
    """The stage in a process of its own, a little slowed down, that notes how much it asked."""
    code = WORKER.format(root=str(ROOT), log=str(log), home=str(home), settings=settings, act=act, pause=pause)
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)


def asked(log: Path) -> int:
    return sum(map(int, log.read_text().split())) if log.exists() else 0


def replies_in(home: Path) -> int:
    return sum(tables.rows(home / name) for name in kept(home))


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Settings, and what an undisturbed run of them makes."""
    folder = tmp_path_factory.mktemp("calm")
    path = canned(folder / "r.jsonl", captions(240))
    settings = {"backend": "replay", "model": str(path), "shard_size": 20, "types": ["swap_nouns", "replace_nouns"]}
    return settings, content(work(folder, captions(240), **settings)[0])


@pytest.mark.slow
def test_ten_kills_change_no_byte_and_cost_a_shard_each_at_most(tmp_path: Path, calm: Any) -> None:
    settings, undisturbed = calm
    log, home, rng, kills = tmp_path / "asked", tmp_path / "killed", random.Random(5), 0
    while True:
        process, before = start(home, log, settings, RUN, 0.02), asked(log)
        while process.poll() is None and kills < 10:
            if asked(log) > before:  # it works: kill it at a random moment soon
                time.sleep(rng.uniform(0, 0.06))
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        _, errors = process.communicate(timeout=120)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, errors.decode()
    assert kills == 10
    assert content(home / "store" / "negatives" / "f.partial") == undisturbed
    assert asked(log) <= replies_in(home) + 10 * 2 * settings["shard_size"]


@pytest.mark.slow
def test_two_processes_fill_one_run_together(tmp_path: Path, calm: Any) -> None:
    settings, undisturbed = calm
    home, logs = tmp_path / "shared", [tmp_path / "run", tmp_path / "assist"]
    pairs(home, captions(240))
    (home / "store" / "negatives" / "f.partial").mkdir(parents=True)
    processes = [start(home, log, settings, act, 0.3) for log, act in zip(logs, (RUN, ASSIST), strict=True)]
    errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert content(home / "store" / "negatives" / "f.partial") == undisturbed
    assert min(map(asked, logs)) > 0 and sum(map(asked, logs)) == replies_in(home)  # both worked, nothing asked twice


def test_failed_asks_are_rows_and_are_asked_again_after_the_stage_gave_up(tmp_path: Path) -> None:
    rows = captions(20)
    whole = canned(tmp_path / "whole.jsonl", rows, wrong=0).read_text().splitlines()
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(whole[:50]))
    settings: dict[str, Any] = {"backend": "replay", "model": str(path)}
    out, _ = work(tmp_path, rows, "kept", **settings, max_reject_rate=0.6)
    failed = [row for row in read(out) if row["status"] == "rejected"]
    assert len(failed) == 2 * 50 and {(row["reason"], row["finish_reason"]) for row in failed} == {("error", "error")}
    assert all("no reply" in row["raw_reply"] and row["text"] is None for row in failed)
    with pytest.raises(UserError, match="for error"):
        work(tmp_path, rows, "refused", **settings, max_reject_rate=0.1)
    assert not list((tmp_path / "store" / "negatives" / "refused.partial").glob("**/faults/**/*.parquet"))


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "vllm", "model": "data/no_such_model"}, "no model folder"),
        ({"backend": "vllm", "model": str(ROOT / "stages")}, r"no config\.json"),
        ({"backend": "replay", "model": "no_such_file"}, "no file"),
        ({"prompts": "no_such_set"}, "no prompt set"),
        ({"examples_per_prompt": 5000}, "examples_per_prompt = 5000"),
    ],
)
def test_what_is_not_there_is_told_before_anything_runs(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        generate.outside(generate.Config(**settings))


def test_placement_stays_out_of_the_identity() -> None:
    plain = generate.Config().identity()
    moved = generate.Config(engine={"tensor_parallel_size": 2}, base_url="http://elsewhere", concurrency=3, timeout=1)
    assert plain == moved.identity() != generate.Config(temperature=0.1).identity()


def test_the_cause_of_a_failed_start_is_found_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(
        "INFO start\n(EngineCore pid=1) ERROR 01-01 [core.py:1] EngineCore failed to start.\n"
        "(EngineCore pid=1) ERROR 01-01 [core.py:2] ValueError: No available memory for the cache blocks.\n"
        "RuntimeError: Engine core initialization failed. See root cause above.\n"
    )
    assert cause(log) == "No available memory for the cache blocks."


# -- the real engine ---------------------------------------------------------------------------------------------------


def tiny_llama(folder: Path) -> Path:
    """A random two-layer Llama with a byte-level tokenizer and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    roles = ["<|system|>", "<|user|>", "<|assistant|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        ["a dog"], trainers.BpeTrainer(vocab_size=300, special_tokens=["</s>", *roles], initial_alphabet=alphabet)
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", additional_special_tokens=roles)
    fast.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(fast), max_position_embeddings=512, eos_token_id=0, bos_token_id=None, **size)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.vllm
def test_vllm_answers_in_one_line_is_seeded_and_leaves_nothing_running(tmp_path: Path) -> None:
    """Starts the real engine, once, on a random model: what it says is noise, and the checks must say so."""
    pytest.importorskip("vllm")
    folder = tmp_path / "prompts"
    folder.mkdir()
    prompt = {"type": "swap_nouns", "rule": "Swap.", "examples": [{"caption": "a b", "negative": "b a"}] * 40}
    (folder / "swap_nouns.yaml").write_text(yaml.safe_dump(prompt))
    rows = [*captions(12), ("p", "a <|user|> dog"), ("p", "dog " * 300)]
    model = tiny_llama(tmp_path / "model")
    settings: dict[str, Any] = {
        "backend": "vllm", "model": str(model), "types": ["swap_nouns"], "prompts": str(folder),
        "examples_per_prompt": 40, "max_reject_rate": 1.0, "temperature": 1.5, "top_p": 1.0,
    }  # fmt: skip
    inputs, partial = {"pairs": pairs(tmp_path, rows)}, tmp_path / "store" / "negatives" / "f.partial"
    texts = ["a dog and a cat", "a cat", "dog " * 300]
    with Work(generate.Config(**settings), inputs, partial, partial / ".work") as engine:
        engine.fill(silent)
        facts, logprobs = engine.facts, engine._model.likelihood(texts)  # type: ignore[attr-defined]
        if Path("/proc/net/tcp").exists():
            assert listening(engine._model._process.pid) <= LOOPBACK  # type: ignore[attr-defined]
    assert logprobs[:2] == pytest.approx(reference(model, texts[:2]), abs=1e-3) and logprobs[2] < logprobs[0]
    out, _ = work(tmp_path, rows, **settings)  # needs no engine: every reply is there
    found = read(out)
    assert len(found) >= 14 and {row["status"] for row in found} <= {"rejected", "accepted"}
    errors = [row["raw_reply"] for row in found if row["finish_reason"] == "error" and row["attempt"] == 0]
    assert len(errors) == 2 and any("special token" in error for error in errors) and any("exceed" in e for e in errors)
    said = [row for row in found if row["finish_reason"] != "error"]
    assert all(row["raw_reply"] and "\n" not in row["raw_reply"] and row["prompt_tokens"] > 200 for row in said)
    assert not {"multi_line", "markup"} & {row["reason"] for row in said}  # structured output forbids them
    assert all(row["reply_tokens"] <= 16 + 30 for row in said)
    assert facts["vllm"] and facts["cached_tokens"] > 0
    assert len({row["raw_reply"] for row in said}) > len(said) // 2
    replay = {"backend": "replay", "model": str(as_replay(tmp_path, found)), "types": ["swap_nouns"]}
    out, _ = work(tmp_path, rows, "again", **replay, max_reject_rate=1.0)
    again = [row["raw_reply"] for row in read(out) if row["finish_reason"] != "error"]
    assert again == [row["raw_reply"] for row in said]
    commands = "".join(
        path.read_text(errors="replace") for path in Path("/proc").glob("[0-9]*/cmdline") if _readable(path)
    )
    assert str(tmp_path) not in commands


def reference(model: Path, texts: list[str]) -> list[float]:
    """Log-probability of each text, by the model's own code."""
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    llama, tokenizer, found = LlamaForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model), []
    for text in texts:
        ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]])
        with torch.no_grad():
            told = llama(ids).logits[0, :-1].log_softmax(-1)
        found.append(float(told.gather(1, ids[0, 1:, None]).sum()))
    return found


def as_replay(tmp_path: Path, found: list[dict[str, Any]]) -> Path:
    """What was said once, as a replay file: generations are data."""
    by_id = {caption_key(f"{image}\0{caption}"): caption for image, caption in [*captions(12), ("p", "a <|user|> dog")]}
    path = tmp_path / "said.jsonl"
    path.write_text(
        "\n".join(
            json.dumps({"type": row["type"], "caption": by_id[row["pair_id"]], "reply": row["raw_reply"],
                        "attempt": row["attempt"], "finish_reason": row["finish_reason"]})
            for row in found
            if row["finish_reason"] != "error"
        )
    )  # fmt: skip
    return path


def _readable(path: Path) -> bool:
    try:
        path.read_text(errors="replace")
    except OSError:
        return False
    return True
