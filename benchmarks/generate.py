"""How fast the generate stage is beside the bare engine, and how much memory it takes.

    PYTHONPATH=. python benchmarks/generate.py engine [--requests 4096] [--model <folder or hub name>]
    PYTHONPATH=. python benchmarks/generate.py memory [--captions 20000 200000]
    PYTHONPATH=. python benchmarks/generate.py judge --captions captions.txt --reference <another checkout> [--rounds 2]

engine: one type, the 50-example English prompt, distinct captions; the stage (plan, requests, engine process, cache of
responses) against vLLM's own `generate` on the same token ids, sampling and caps, shard by shard in turn, each in an
engine of its own whose start and first shard do not count. Without --model a random Llama of toy size is used that ends
its responses after about a dozen tokens: its steps are as short as steps get, which is the stage's hardest case.
memory: peak memory of a whole run with the replay backend, five types, per number of captions.
judge: the stage on all cores beside that of another checkout, five types: `rules` writes and judges, `replay` judges
what our rules wrote. Start, shards and tables count; so that the blind test hardly does, it looks at 100 negatives.
"""

import argparse
import csv
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.stand_ins import captions, chat_tokenizer
from pipeline import tables
from pipeline.artifact import now
from pipeline.negative_types import NEGATIVE_TYPES
from pipeline.schema import PAIRS
from pipeline.stage import silent
from pipeline.store import Store
from stages.generate import STAGE, Config, prompts
from stages.generate.candidates import Work, request_seed
from stages.generate.responses import caption_key
from stages.generate.rules import Rules, Vocabulary
from stages.language_models.base import Request


def publish(store: Store, texts: list[str]) -> Any:
    """A pairs artifact, five captions per picture."""
    with store.build("pairs", "0" * 16) as partial:
        for index in range(0, len(texts), 50_000):
            rows = [
                {
                    "pair_id": caption_key(f"{(index + i) // 5}\0{text}"), "image_key": f"p{(index + i) // 5}",
                    "image_uri": "a.jpg", "image_sha256": "0", "phash": 0, "width": 1, "height": 1, "caption": text,
                    "source": "csv", "split": "train", "scene": None,
                }
                for i, text in enumerate(texts[index : index + 50_000])
            ]  # fmt: skip
            tables.write(tables.part(partial, index // 50_000), pa.Table.from_pylist(rows, PAIRS), PAIRS)
        manifest = {"kind": "pairs", "fingerprint": "0" * 16, "stage": "ingest", "stage_version": 1, "config": {},
                    "inputs": {}, "outside": {}, "meta": {}, "started": now()}  # fmt: skip
        return store.publish(partial, manifest=manifest)


# -- engine ------------------------------------------------------------------------------------------------------------


def toy_llama(folder: Path, texts: list[str]) -> None:
    """A random two-layer Llama whose tokenizer learned these texts."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    fast = chat_tokenizer(texts, 2000)
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(fast), max_position_embeddings=8192, eos_token_id=0, bos_token_id=None, **size)
    llama = LlamaForCausalLM(config)
    with torch.no_grad():  # one feature is the same for every token and tells the end: replies of a dozen tokens
        llama.model.embed_tokens.weight[:, 0] = 1.0
        for layer in llama.model.layers:
            layer.self_attn.o_proj.weight[0] = 0.0
            layer.mlp.down_proj.weight[0] = 0.0
        llama.lm_head.weight[0, 0] = 0.46
    llama.save_pretrained(folder)


def bare_engine(orders: Any, model: str) -> None:
    """vLLM's own generate, in a process of its own: gets captions, gives seconds, reply tokens and prompt tokens."""
    from vllm import SamplingParams, TokensPrompt

    from stages.language_models.chat import encode
    from stages.language_models.vllm import _Loaded

    config = Config(model=model, types=["swap_nouns"])
    prompt = prompts.load("english", ["swap_nouns"], 50)["swap_nouns"]
    sampling = {"temperature": config.temperature, "top_p": config.top_p, "n": 1}
    loaded = _Loaded(
        orders, model=model, revision=None, sampling=sampling, seed=config.seed, structured=True, chat_template={},
        settings={},
    )  # fmt: skip
    orders.send("ready")
    while (texts := orders.recv()) is not None:
        chats = [[{"role": "user", "content": text}] for text in texts]
        ids = encode(loaded._tokenizer, prompt.prefix, chats, {})
        work = [
            SamplingParams(max_tokens=16 + len(text) // 2, seed=request_seed(config.seed, "swap_nouns", 0, text),
                           **loaded._sampling)
            for text in texts
        ]  # fmt: skip
        inputs = [TokensPrompt(prompt_token_ids=one) for one in ids]
        start = time.monotonic()
        outputs = loaded.llm.generate(inputs, work, use_tqdm=False)
        seconds = time.monotonic() - start
        orders.send((seconds, sum(len(output.outputs[0].token_ids) for output in outputs), len(ids[0])))


def engine(requests: int, model: str | None) -> None:
    texts = captions(requests)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if model is None:
            told = prompts.load("english", ["swap_nouns"], 50)["swap_nouns"].prefix
            toy_llama(home / "model", [message["content"] for message in told] + texts[:500])
            model = str(home / "model")
        mine, its = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=bare_engine, args=(its, model), daemon=True)
        process.start()
        mine.recv()
        store = Store(home / "runs")
        inputs = {"pairs": publish(store, texts)}
        out = store.folder("negatives", "f.partial")
        config = Config(model=model, types=["swap_nouns"], repair_attempts=0, shard_size=requests // 8)
        start = time.monotonic()
        bare = tokens = prompt_tokens = 0
        with Work(config, inputs, out, home / "scratch") as work:
            stage = time.monotonic() - start
            work.fill_shard("swap_nouns", 0, 0, lambda _: None)  # starts the engine, and fills both caches
            mine.send([entry.caption for entry in work.shards.read(0)])
            mine.recv()
            count = 0
            for index in range(1, work.shards.count):
                start = time.monotonic()
                count += work.fill_shard("swap_nouns", 0, index, lambda _: None)
                stage += time.monotonic() - start
                mine.send([entry.caption for entry in work.shards.read(index)])
                seconds, made, prompt_tokens = mine.recv()
                bare, tokens = bare + seconds, tokens + made
            facts = work.facts
        mine.send(None)
        process.join()
    print(
        json.dumps(
            {
                "requests": count,
                "prompt_tokens_each": prompt_tokens,
                "reply_tokens_bare": tokens,
                "bare_captions_per_s": round(count / bare, 1),
                "stage_captions_per_s": round(count / stage, 1),
                "stage_of_bare": round(bare / stage, 3),
                "prefix_cache_hit_rate": round(facts["cached_tokens"] / facts["prompt_tokens"], 4),
                "device": facts["device"],
                "vllm": facts["vllm"],
            },
            indent=1,
        )
    )


# -- memory ------------------------------------------------------------------------------------------------------------


def whole_run(answer: Any, folder: Path, inputs: Any) -> None:
    """Run the stage in a process of its own; its peak memory (MiB) and seconds."""
    start = time.monotonic()
    config = Config(backend="replay", model=str(folder / "replies.parquet"), repair_attempts=0)
    out = folder / "store" / "negatives" / "f.partial"
    out.mkdir(parents=True)
    meta = STAGE.run(config, inputs, out, silent)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    accepted = sum(entry["pairs"]["accepted"] for entry in meta["types"].values())
    answer.send((peak, time.monotonic() - start, accepted))


def replies(path: Path, texts: list[str]) -> None:
    """A good reply of every type to every caption, written in batches."""
    schema = pa.schema([("type", pa.string()), ("caption", pa.string()), ("reply", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for index in range(0, len(texts), 10_000):
            rows = []
            for text in texts[index : index + 10_000]:
                words = text.split()
                swapped = " ".join([*words[:2], words[7], *words[3:7], words[2], *words[8:]])
                mixed = " ".join([words[0], words[6], *words[2:6], words[1], *words[7:]])
                replaced = " ".join([*words[:2], "zebra", *words[3:]])
                recoloured = " ".join([words[0], "grey", *words[2:]])
                made = (swapped, swapped, mixed, replaced, recoloured)
                rows += [{"type": kind, "caption": text, "reply": reply}
                         for kind, reply in zip(NEGATIVE_TYPES, made, strict=True)]  # fmt: skip
            writer.write_table(pa.Table.from_pylist(rows, schema))


def memory(counts: list[int]) -> None:
    peaks = []
    for count in counts:
        folder = Path(tempfile.mkdtemp())
        texts = captions(count)
        inputs = {"pairs": publish(Store(folder), texts)}
        replies(folder / "replies.parquet", texts)
        del texts
        mine, its = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=whole_run, args=(its, folder, inputs))
        process.start()
        peak, seconds, accepted = mine.recv()
        process.join()
        shutil.rmtree(folder)
        peaks.append(peak)
        print(f"{count:8} captions x 5: peak {peak:,.0f} MiB, {seconds:,.0f} s, {accepted:,} accepted", flush=True)
    print(f"largest of smallest: {max(peaks) / min(peaks):.2f} x")


# -- judging -----------------------------------------------------------------------------------------------------------

ONE_RUN = """
import json, os, resource, sys, time
from pathlib import Path
import generate as bench  # that of the checkout, whatever its modules are called

home, texts, settings = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), json.loads(sys.argv[3])
verb = getattr(bench, "generate", bench)

if __name__ == "__main__":
    inputs = {"pairs": bench.publish(bench.Store(home), texts)}
    out = home / "store" / "negatives" / "f.partial"
    out.mkdir(parents=True)
    start = time.monotonic()
    verb.STAGE.run(verb.Config(**settings), inputs, out, bench.silent)
    wall = time.monotonic() - start
    cpu = sum(sum(resource.getrusage(whose)[:2]) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    candidates = sum(bench.tables.rows(part) for part in bench.tables.files(out))
    print(json.dumps({"wall": wall, "cpu": cpu, "candidates": candidates}))
"""


def one_run(checkout: Path, texts: Path, settings: dict[str, Any]) -> dict[str, float]:
    """The stage in a process of its own, with the code of a checkout."""
    with tempfile.TemporaryDirectory() as home:
        script = Path(home) / "one_run.py"
        script.write_text(ONE_RUN)
        done = subprocess.run(
            [sys.executable, str(script), home, str(texts), json.dumps(settings)],
            env={**os.environ, "PYTHONPATH": f"{checkout}{os.pathsep}{checkout / 'benchmarks'}"},
            check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found


def judge(captions: Path, most: int, reference: Path, rounds: int) -> None:
    with captions.open(newline="") as handle:
        texts = list(dict.fromkeys(row["caption"] for row in csv.DictReader(handle)))[:most]
    with tempfile.TemporaryDirectory() as folder:
        listed, written = Path(folder) / "texts.json", Path(folder) / "replies.parquet"
        listed.write_text(json.dumps(texts))
        rules = Rules(Vocabulary.of(texts))
        rows = [
            {"type": kind, "caption": text, "reply": response.text}
            for kind in NEGATIVE_TYPES
            for text, response in zip(
                texts, rules.respond(kind, [], [Request(text, 0, 0, 40) for text in texts]), strict=True
            )
        ]
        pq.write_table(pa.Table.from_pylist(rows), written)
        common = {
            "shard_size": 256,
            "blind_sample": 100,
            "max_reject_rate": 1.0,
            "repair_attempts": 0,
        }
        for backend, settings in (("rules", {}), ("replay", {"model": str(written)})):
            for number in range(rounds):
                ours, theirs = (
                    one_run(checkout, listed, {"backend": backend, **common, **settings})
                    for checkout in (Path(__file__).parents[1], reference.resolve())
                )
                rates = [len(texts) * len(NEGATIVE_TYPES) / one["wall"] for one in (ours, theirs)]
                print(
                    f"{backend} round {number}: {rates[0]:,.0f} negatives/s against {rates[1]:,.0f}, "
                    f"{rates[0] / rates[1]:.2f} x by the clock, {theirs['cpu'] / ours['cpu']:.2f} x in CPU time; "
                    f"cores in use {ours['cpu'] / ours['wall']:.2f} and {theirs['cpu'] / theirs['wall']:.2f}",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    speed = commands.add_parser("engine")
    speed.add_argument("--requests", type=int, default=4700)
    speed.add_argument("--model", default=None)
    flat = commands.add_parser("memory")
    flat.add_argument("--captions", type=int, nargs="+", default=[20_000, 200_000])
    beside = commands.add_parser("judge")
    beside.add_argument("--captions", type=Path, required=True, help="CSV file with a column caption")
    beside.add_argument("--most", type=int, default=20_000, help="captions that are used")
    beside.add_argument("--reference", type=Path, required=True, help="checkout of another commit")
    beside.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.command == "engine":
        engine(arguments.requests, arguments.model)
    elif arguments.command == "judge":
        judge(arguments.captions, arguments.most, arguments.reference, arguments.rounds)
    else:
        memory(arguments.captions)


if __name__ == "__main__":
    main()
