"""Captions in, judged candidates out: ask what no reply is kept for, judge every reply, refine what text gives away."""

import platform
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyarrow.parquet as pq

from pipeline import tables
from pipeline.artifact import SCRATCH
from pipeline.schema import NEGATIVES
from pipeline.stage import Inputs, Progress
from stages.generate import refine as giveaways
from stages.generate import shards
from stages.generate.backends import ask_seed, model_name, open_model, prompt_digest, prompts_of, source
from stages.generate.checks import judge, likely_types
from stages.generate.replies import Kept, Replies
from stages.generate.shards import Entry, Pair, Shards
from stages.language_models.base import Ask, LanguageModel

if TYPE_CHECKING:
    from stages.generate.stage import Config


class Work:
    """One run's captions, prompts and replies. A context manager: leaving it ends the language model."""

    def __init__(self, config: "Config", inputs: Inputs, out: Path, scratch: Path) -> None:
        self._config, self._prompts, self._scratch = config, prompts_of(config), scratch
        is_given = config.backend == "given"
        self.shards: Shards = shards.make(inputs["pairs"], scratch / "plan.parquet", config.shard_size, given=is_given)
        self._started: LanguageModel | None = None
        home, faults = out.parents[2] / "replies", out / SCRATCH / "faults"
        self._replies = {
            kind: Replies.of(home, kind, source(config, prompt, inputs), faults)
            for kind, prompt in self._prompts.items()
            if not is_given
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._started:
            self._started.close()

    @property
    def _model(self) -> LanguageModel:
        """The language model, started when it is first needed, and only then."""
        if self._started is None:
            self._started = open_model(self._config, self.shards, self._scratch / "engine.log")
        return self._started

    @property
    def facts(self) -> dict[str, Any]:
        """The model's own facts, none when nothing was asked."""
        return self._started.facts() if self._started else {}

    def fill(self, progress: Progress) -> None:
        """Ask for every reply that is not there yet."""
        repairs = 0 if self._config.backend == "rules" else self._config.repair_attempts
        for attempt in range(1 + repairs):
            for kind in self._replies:
                self._fill_type(kind, attempt, progress)

    def _fill_type(self, kind: str, attempt: int, progress: Progress) -> None:
        """One attempt of one type, shard by shard; shards that another process holds are waited for.

        Every machine has an order of its own: those that share replies through a bucket, where no lock reaches, then
        seldom ask the same.
        """
        what = f"captions, {kind}" if attempt == 0 else f"captions, {kind} again"
        total, done = self.shards.captions, 0
        waiting = list(range(self.shards.count))
        random.Random(platform.node()).shuffle(waiting)
        while waiting:
            held = []
            for index in waiting:
                with self._replies[kind].claim(f"{'-'.join(self.shards.bounds(index))}.{attempt}") as mine:
                    if mine:
                        done += self.fill_shard(kind, attempt, index, partial(_shifted, progress, what, done, total))
                    else:
                        held.append(index)
            if held and len(held) == len(waiting):
                time.sleep(0.5)
            waiting = held
        progress(what, total, total)

    def fill_shard(self, kind: str, attempt: int, index: int, advance: Callable[[int], None]) -> int:
        """Ask what the shard still lacks and keep the replies. Gives the shard's captions."""
        entries = self.shards.read(index)
        asks = self._missing(kind, attempt, index, entries)
        count = len(entries) - len(asks)
        advance(count)

        def tick(more: int) -> None:
            nonlocal count
            count += more
            advance(count)

        if asks:
            start = time.monotonic()
            prompt = self._prompts[kind]
            prefix = prompt.prefix(self._config.examples_per_prompt) if prompt else []
            replies = self._model.reply(kind, prefix, asks, tick)
            is_paid = self._config.backend in ("vllm", "openai")
            self._replies[kind].add(asks, replies, time.monotonic() - start if is_paid else 0.0)
        return len(entries)

    def _missing(self, kind: str, attempt: int, index: int, entries: Sequence[Entry]) -> list[Ask]:
        """Asks of this attempt without a reply; a repair is asked where a pair refused the try before."""
        kept = self._replies[kind].find(*self.shards.bounds(index))
        asks = []
        for entry in entries:
            if (entry.key, attempt) in kept:
                continue
            if attempt:
                before = kept.get((entry.key, attempt - 1))
                if before is None or not any(_refused(kind, entry.caption, before, pair) for pair in entry.pairs):
                    continue
            siblings = {sibling for pair in entry.pairs for sibling in pair.siblings}
            asks.append(
                Ask(
                    entry.caption,
                    attempt,
                    ask_seed(self._config.seed, kind, attempt, entry.caption),
                    max_tokens=16 + len(entry.caption) // 2,
                    avoid=tuple(sorted(siblings - {entry.caption})),
                )
            )
        return asks

    def rows(self, index: int) -> list[dict[str, Any]]:
        """The negatives table of one shard: every candidate of every pair, judged, in order of pair, type, attempt."""
        entries = self.shards.read(index)
        if not self._replies:
            rows = [row for entry in entries for pair in entry.pairs for row in _brought(entry, pair, self._prompts)]
        else:
            rows = []
            for kind, replies in self._replies.items():
                kept = replies.find(*self.shards.bounds(index))
                for entry in entries:
                    for pair in entry.pairs:
                        rows += ({"type": kind, **row} for row in _candidates(kind, entry, pair, kept))
        order = {kind: place for place, kind in enumerate(self._prompts)}
        digests = {kind: prompt_digest(self._config, prompt) for kind, prompt in self._prompts.items()}
        shared = {"model": model_name(self._config), "likelihood": None, "weight": 1.0}
        rows = [
            {**row, **shared, "prompt_digest": digests[row["type"]]}
            for row in sorted(rows, key=lambda row: (row["pair_id"], order[row["type"]], row["attempt"]))
        ]
        if self._config.likelihood:
            self._likelihoods(entries, rows)
        return rows

    def refine(self, judged: Path, out: Path, examined: Mapping[str, giveaways.Examined], progress: Progress) -> None:
        """Write the table anew without, or with less weight on, what the blind test gives away."""
        for index in range(self.shards.count):
            captions = {
                pair.pair_id: (pair.image_key, entry.caption)
                for entry in self.shards.read(index)
                for pair in entry.pairs
            }
            rows = pq.read_table(tables.part(judged, index)).to_pylist()
            refined = giveaways.refine(rows, captions, examined, self._config.refine, self._config.refine_margin)
            tables.write(tables.part(out, index), refined, NEGATIVES)
            progress("shards refined", index + 1, self.shards.count)

    def _likelihoods(self, entries: Sequence[Entry], rows: list[dict[str, Any]]) -> None:
        """Set every accepted row's `likelihood`; each distinct text is scored once."""
        from stages.language_models.vllm import Engine

        assert isinstance(self._model, Engine)  # the settings allow no other
        captions = {pair.pair_id: entry.caption for entry in entries for pair in entry.pairs}
        accepted = [row for row in rows if row["status"] == "accepted"]
        texts = sorted({text for row in accepted for text in (row["text"], captions[row["pair_id"]])})
        logprob = dict(zip(texts, self._model.likelihood(texts), strict=True))
        for row in accepted:
            row["likelihood"] = logprob[captions[row["pair_id"]]] - logprob[row["text"]]

    def paid(self) -> dict[str, Any]:
        """What the replies to this run's captions took, per type."""
        return {kind: replies.paid(self.shards.plan) for kind, replies in self._replies.items()}


def _shifted(progress: Progress, what: str, done: int, total: int, more: int) -> None:
    progress(what, done + more, total)


# -- judging -----------------------------------------------------------------------------------------------------------


def _candidates(kind: str, entry: Entry, pair: Pair, kept: dict[tuple[str, int], Kept]) -> Iterator[dict[str, Any]]:
    """What became of one pair's tries of one type: up to the first that is not refused."""
    for attempt in count():
        if (found := kept.get((entry.key, attempt))) is None:
            return
        reply = found.reply
        verdict = judge(kind, entry.caption, reply.text, pair.siblings, finish_reason=reply.finish_reason)
        yield {
            "pair_id": pair.pair_id,
            "text": verdict.text,
            "status": verdict.status,
            "reason": verdict.reason,
            "attempt": attempt,
            "raw_reply": reply.text if reply.error is None else reply.error,
            "finish_reason": reply.finish_reason,
            "prompt_tokens": reply.prompt_tokens,
            "reply_tokens": reply.reply_tokens,
        }
        if verdict.status != "rejected":
            return


def _brought(entry: Entry, pair: Pair, kinds: Collection[str]) -> Iterator[dict[str, Any]]:
    """The negatives a pair came with, each as the likeliest type whose checks take it and that is not taken yet."""
    tries = dict.fromkeys(kinds, 0)
    taken: set[str] = set()
    for text in pair.given:
        wanted = [kind for kind in likely_types(entry.caption, text) if kind in kinds]
        if not wanted:  # of a type this run does not want
            continue
        verdicts = {kind: judge(kind, entry.caption, text, pair.siblings) for kind in wanted}
        fitting = [kind for kind in wanted if verdicts[kind].status == "accepted"]
        kind = next((kind for kind in fitting if kind not in taken), None)
        named = kind or (fitting or wanted)[0]
        if kind:
            taken.add(kind)
        yield {
            "pair_id": pair.pair_id,
            "type": named,
            "text": verdicts[named].text,
            "status": "accepted" if kind else "rejected",
            "reason": None if kind else "type_taken" if fitting else verdicts[named].reason or "empty",
            "attempt": tries[named],
            "raw_reply": text,
            "finish_reason": None,
            "prompt_tokens": None,
            "reply_tokens": None,
        }
        tries[named] += 1


def _refused(kind: str, caption: str, kept: Kept, pair: Pair) -> bool:
    reply = kept.reply
    verdict = judge(kind, caption, reply.text, pair.siblings, finish_reason=reply.finish_reason)
    return verdict.status == "rejected"
