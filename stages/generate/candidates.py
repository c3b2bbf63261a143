"""Captions in, checked candidates out: request what is not cached, check every response, refine the result."""

import hashlib
import platform
import random
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self

import pyarrow.parquet as pq

from pipeline import tables
from pipeline.artifact import SCRATCH
from pipeline.crew import Crew, cores
from pipeline.negative_types import UNITS
from pipeline.schema import NEGATIVES
from pipeline.stage import Inputs, Progress
from stages.generate import refine, shards, verify
from stages.generate.backends import BACKENDS
from stages.generate.checks import Verdict, validate
from stages.generate.config import Config
from stages.generate.constraints import constrained, is_constrained
from stages.generate.likely_types import likely_types
from stages.generate.limits import Watch
from stages.generate.prompts import prompt_digest, prompts_of
from stages.generate.ranked import Ranked
from stages.generate.responses import ResponseCache, Tries, sources
from stages.generate.shards import Entry, Pair, Shards
from stages.generate.tries import TryRules, judge, tries
from stages.language_models.base import LanguageModel, Message, Request, Response, Scorer

CHUNK = 500
"""Requests a process answers, or responses it judges to find those worth a repair, at a time."""

WIDEST = 128
"""Responses that a request may bring."""

ENOUGH = 1000
"""Distinct captions whose work takes longer than further processes take to start; they must save as much."""


class Work:
    """One run's captions, prompts and responses. A context manager: leaving it ends the model and all processes.

    A copy of it for another process has no model, unless that is plain data.

    With a `limit`, of that many captions alone; a model still learns from all. `crew` has the processes.
    """

    def __init__(self, config: Config, inputs: Inputs, out: Path, scratch: Path, limit: int | None = None) -> None:
        self._config, self._prompts, self._scratch = config, prompts_of(config), scratch
        self._backend = BACKENDS[config.backend]
        self.shards: Shards = shards.make(
            inputs["pairs"], scratch / "plan.parquet", config.shard_size, given=not self._backend.has_responses
        )
        if limit is not None:
            self.shards = self.shards.limited(limit)
        self._started: LanguageModel | None = None
        home, self._faults = out.parents[2] / "replies", out / SCRATCH / "faults"
        self._responses = {
            kind: ResponseCache.of(home, kind, source, self._faults)
            for kind, source in sources(config, self._prompts, inputs).items()
        }
        repaired = TryRules(config.samples, 1 + config.repair_attempts, config.repairs_say_why)
        self._rules = repaired if self._backend.repairs else TryRules(WIDEST, 1, says_why=False)
        attempts = self._rules.attempts
        self._watches = {kind: Watch(config, kind, self.shards.captions, attempts) for kind in self._responses}
        many = max(cores() // config.workers, 1)
        worth = many if self.shards.captions * (1 - 1 / many) > ENOUGH else 1
        self.crew = Crew("generate", config.processes or worth)

    def __getstate__(self) -> dict[str, Any]:
        started = self._started if self._backend.is_plain else None
        kept = {name: value for name, value in self.__dict__.items() if name != "_judge"}
        return {**kept, "_started": started, "crew": Crew("generate", 1)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exit: Any) -> None:
        self.crew.__exit__(*exit)
        if self._started:
            self._started.close()

    @property
    def _model(self) -> LanguageModel:
        """The language model, started when it is first needed, and only then."""
        if self._started is None:
            model = self._backend.open(self._config, self.shards.sample, self._scratch / "engine.log")
            is_ordered = self._config.samples > 1 and isinstance(model, Scorer)
            self._started = Ranked(model, model) if is_ordered else model
        return self._started

    @property
    def facts(self) -> dict[str, Any]:
        """The model's own facts, none when nothing was requested."""
        return self._started.facts() if self._started else {}

    def fill(self, progress: Progress) -> None:
        """Request every response that is not there yet, every try of one type before the next type.

        Raises UserError when too many requests fail or too many responses are rejected, TransientError when the model
        is gone; what came in stays cached, and failed requests are forgotten, so that the next start makes them again.
        """
        try:
            if self._backend.is_plain:
                self._fill_shards(progress)
            else:
                for kind in self._responses:
                    for attempt in range(self._rules.attempts):
                        self._fill_type(kind, attempt, progress)
        except Exception:
            self.forget_faults()
            raise

    def forget_faults(self) -> None:
        """Let the next start make the failed requests again."""
        shutil.rmtree(self._faults, ignore_errors=True)

    def _fill_shards(self, progress: Progress) -> None:
        """Every type of a shard before the next shard, so that a caption is read once; shards side by side."""
        every = list(self.crew.map(self.complete, range(self.shards.count)))
        done, total = sum(every), self.shards.captions
        progress("captions", done, total)
        if done < total:
            _ = self._model  # every process gets a copy of this one
            for count in self.crew.map(self.fill_types, [index for index, size in enumerate(every) if not size]):
                done += count
                progress("captions", done, total)

    def complete(self, index: int) -> int:
        """How many captions a shard has that lacks no response, else 0."""
        entries = self.shards.read(index)
        return 0 if any(self._missing(kind, 0, index, entries) for kind in self._responses) else len(entries)

    def fill_types(self, index: int) -> int:
        """The first try of every type of one shard; how many captions the shard has."""
        waiting, count = list(self._responses), 0
        while waiting:
            for kind in list(waiting):
                with self._claim(kind, 0, index) as mine:
                    if mine:
                        count = self.fill_shard(kind, 0, index, lambda _: None)
                        waiting.remove(kind)
            if waiting:
                time.sleep(0.5)
        return count

    def _claim(self, kind: str, attempt: int, index: int) -> AbstractContextManager[bool]:
        return self._responses[kind].claim(f"{'-'.join(self.shards.bounds(index))}.{attempt}")

    def _fill_type(self, kind: str, attempt: int, progress: Progress) -> None:
        """One attempt of one type, shard by shard; shards that another process holds are waited for.

        Every machine has an order of its own: those that share responses through a bucket, where no lock reaches,
        then seldom request the same.
        """
        what = f"captions, {kind}" if attempt == 0 else f"captions, {kind} again"
        total, done = self.shards.captions, 0
        waiting = list(range(self.shards.count))
        random.Random(platform.node()).shuffle(waiting)
        while waiting:
            held = []
            for index in waiting:
                with self._claim(kind, attempt, index) as mine:
                    if mine:
                        done += self.fill_shard(kind, attempt, index, partial(_shifted, progress, what, done, total))
                    else:
                        held.append(index)
            if held and len(held) == len(waiting):
                time.sleep(0.5)
            waiting = held
        progress(what, total, total)

    def fill_shard(self, kind: str, attempt: int, index: int, advance: Callable[[int], None]) -> int:
        """Request what the shard still lacks and cache the responses; how many captions the shard has."""
        entries = self.shards.read(index)
        requests = self._missing(kind, attempt, index, entries)
        count = len(entries) - len(requests)
        advance(count)
        if not requests:
            return len(entries)
        by_caption = {entry.caption: entry for entry in entries}
        unkept: list[Response] = []
        kept, start = 0, time.monotonic()

        def keep() -> None:
            nonlocal kept, start
            seconds = time.monotonic() - start if self._backend.is_paid else 0.0
            self._responses[kind].add(requests[kept : kept + len(unkept)], unkept, seconds)
            kept, start = kept + len(unkept), time.monotonic()
            unkept.clear()

        try:
            for response in self._respond(kind, requests):
                request = requests[kept + len(unkept)]
                unkept.append(response)
                advance(count + kept + len(unkept))
                self._see(kind, attempt, by_caption[request.caption], (response, *response.others))
                if time.monotonic() - start >= self._config.keep_every:
                    keep()
        finally:
            keep()
        return len(entries)

    def _respond(self, kind: str, requests: Sequence[Request]) -> Iterable[Response]:
        """The model's responses, as they come in; of a model that is plain data, from every process."""
        prompt = self._prompts[kind]
        prefix = prompt.prefix if prompt else []
        if not self._backend.is_plain:
            return self._model.respond(kind, prefix, requests)
        some = [requests[start : start + CHUNK] for start in range(0, len(requests), CHUNK)]
        return chain.from_iterable(self.crew.map(partial(_responses, self._model, kind, prefix), some))

    def _see(self, kind: str, attempt: int, entry: Entry, responses: Sequence[Response]) -> None:
        if self._backend.repairs:  # else a response brings all there is, and costs little
            verdicts = (_best(kind, entry.caption, responses, pair) for pair in entry.pairs)
            self._watches[kind].see(attempt, responses[0], verdicts)

    def _missing(self, kind: str, attempt: int, index: int, entries: Sequence[Entry]) -> list[Request]:
        """Requests of this attempt without a response; a repair only where a pair rejected the responses before."""
        cached = self._responses[kind].find(*self.shards.bounds(index))
        known = [(entry, cached.get(entry.key, {})) for entry in entries]
        some = [known[start : start + CHUNK] for start in range(0, len(known), CHUNK)]
        reach = partial(_reached, kind, attempt, self._rules)
        found = self.crew.map(reach, some) if attempt else map(reach, some)  # nothing is judged before the first
        requests = []
        for entry, reached in zip(entries, chain.from_iterable(found), strict=True):
            if reached is None:
                continue
            rejected, told, responses = reached
            if responses:
                if self._watches[kind].wants(attempt):
                    self._see(kind, attempt, entry, responses)
                continue
            others = {text for pair in entry.pairs for text in pair.known(kind)}
            requests.append(
                Request(
                    entry.caption,
                    attempt * self._rules.width,
                    request_seed(self._config.seed, kind, attempt, entry.caption),
                    max_tokens=16 + len(entry.caption) * (4 if kind == UNITS else 1) // 2,
                    avoid=tuple(sorted(others - {entry.caption})),
                    rejected=rejected,
                    told=told,
                )
            )
        if is_constrained(self._config.structured, kind):
            chunks = [requests[start : start + CHUNK] for start in range(0, len(requests), CHUNK)]
            requests = list(chain.from_iterable(self.crew.map(partial(constrained, kind), chunks)))
        return requests

    def check(self, folder: Path, progress: Progress) -> None:
        """Write the parts of the negatives table that are not in the folder yet, side by side."""
        count = self.shards.count
        missing = [index for index in range(count) if not tables.part(folder, index).exists()]
        progress("shards checked", count - len(missing), count)
        if not (self._config.likelihood or self._config.verify):
            written = self._write(folder, missing)
        else:  # the model is in this process
            judged = self._scratch / "judged"
            shutil.rmtree(judged, ignore_errors=True)
            written = map(partial(self._add_scores, judged, folder), self._write(judged, missing))
        for done, _ in enumerate(written, count - len(missing) + 1):
            progress("shards checked", done, count)

    def _write(self, folder: Path, missing: Sequence[int]) -> Iterator[int]:
        """Write parts of the table, side by side; the number of each. Few of them are judged in slices."""
        slices = -(-self.crew.size // max(len(missing), 1))
        if slices == 1:
            yield from self.crew.map(partial(self.write, folder), missing)
            return
        judged = self.crew.map(
            partial(self._judged, slices), [(index, at) for index in missing for at in range(slices)]
        )
        for index in missing:
            rows = chain.from_iterable(islice(judged, slices))
            tables.write(tables.part(folder, index), self._ordered(rows), NEGATIVES)
            yield index

    def write(self, folder: Path, index: int) -> int:
        """Write one part of the table; its number."""
        tables.write(tables.part(folder, index), self.rows(index), NEGATIVES)
        return index

    def _add_scores(self, judged: Path, folder: Path, index: int) -> int:
        rows = pq.read_table(tables.part(judged, index)).to_pylist()
        captions = {pair.pair_id: entry.caption for entry in self.shards.read(index) for pair in entry.pairs}
        if self._config.verify:
            verify.verify(self._judge, self._config, rows, captions)
        if self._config.likelihood:
            self._likelihoods(captions, rows)
        tables.write(tables.part(folder, index), rows, NEGATIVES)
        return index

    def rows(self, index: int) -> list[dict[str, Any]]:
        """The negatives table of one shard: every candidate of every pair, checked, in order of pair, type, attempt.

        What a model tells of them is left out.
        """
        return self._ordered(self._judged(1, (index, 0)))

    def _judged(self, slices: int, place: tuple[int, int]) -> list[dict[str, Any]]:
        """The rows of one slice of a shard; `place` is the shard's number and the slice's."""
        index, at = place
        entries = self.shards.read(index)
        entries = entries[len(entries) * at // slices : len(entries) * (at + 1) // slices]
        if not self._backend.has_responses:
            return [row for entry in entries for pair in entry.pairs for row in _brought(entry, pair, self._prompts)]
        cached = {kind: responses.find(*self.shards.bounds(index)) for kind, responses in self._responses.items()}
        return [
            {"type": kind, **row}
            for entry in entries  # and not type by type, so that a caption is read once
            for kind, found in cached.items()
            for row in _candidates(kind, entry, found.get(entry.key, {}), self._rules)
        ]

    def _ordered(self, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows in order, with what all of them share."""
        order = {kind: place for place, kind in enumerate(self._prompts)}
        digests = {kind: prompt_digest(prompt) for kind, prompt in self._prompts.items()}
        unset = dict.fromkeys(("likelihood", "follows", "grammatical"))
        shared = {"model": self._backend.name(self._config), **unset, "weight": 1.0}
        return [
            {**row, **shared, "prompt_digest": digests[row["type"]]}
            for row in sorted(rows, key=lambda row: (row["pair_id"], order[row["type"]], row["attempt"]))
        ]

    def refine(self, unrefined: Path, out: Path, examined: Mapping[str, refine.Examined], progress: Progress) -> None:
        """Write the table anew without, or with less weight on, what the blind test tells by text alone."""
        for index in range(self.shards.count):
            captions = {
                pair.pair_id: (pair.image_key, entry.caption)
                for entry in self.shards.read(index)
                for pair in entry.pairs
            }
            rows = pq.read_table(tables.part(unrefined, index)).to_pylist()
            refined = refine.refine(rows, captions, examined, self._config.refine, self._config.refine_margin)
            tables.write(tables.part(out, index), refined, NEGATIVES)
            progress("shards refined", index + 1, self.shards.count)

    @cached_property
    def _judge(self) -> verify.Judge:
        return verify.judge_of(self._config, lambda: self._model)

    def _likelihoods(self, captions: Mapping[str, str], rows: list[dict[str, Any]]) -> None:
        """Set every accepted row's `likelihood`; each distinct text is scored once."""
        assert isinstance(self._model, Scorer)  # the settings allow no other
        accepted = [row for row in rows if row["status"] == "accepted"]
        if not accepted:
            return
        texts = sorted({text for row in accepted for text in (row["text"], captions[row["pair_id"]])})
        logprob = dict(zip(texts, self._model.likelihood(texts), strict=True))
        for row in accepted:
            row["likelihood"] = logprob[captions[row["pair_id"]]] - logprob[row["text"]]

    def paid(self) -> dict[str, Any]:
        """What the cached responses to this run's captions took, per type."""
        return {kind: responses.paid(self.shards.plan, self.shards.last) for kind, responses in self._responses.items()}


def _responses(model: LanguageModel, kind: str, prefix: list[Message], requests: Sequence[Request]) -> list[Response]:
    return list(model.respond(kind, prefix, requests))


def _shifted(progress: Progress, what: str, done: int, total: int, more: int) -> None:
    progress(what, done + more, total)


def request_seed(seed: int, kind: str, attempt: int, caption: str) -> int:
    """The sampling seed of one request, fixed by what is requested: [0, 2^31)."""
    return int(hashlib.sha256(f"{seed}:{kind}:{attempt}:{caption}".encode()).hexdigest()[:8], 16) >> 1


# -- checking ----------------------------------------------------------------------------------------------------------


def _candidates(kind: str, entry: Entry, known: Tries, rules: TryRules) -> Iterator[dict[str, Any]]:
    """What became of the tries of one caption and type, for each of its pairs up to the first that is not rejected."""
    for made in tries(kind, entry, known, rules):
        for pair, judged in made.judged:
            for number, response, verdict in judged:
                yield {
                    "pair_id": pair.pair_id,
                    "text": verdict.text,
                    "status": verdict.status,
                    "reason": verdict.reason,
                    "attempt": number,
                    "raw_reply": response.text if response.error is None else response.error,
                    "finish_reason": response.finish_reason,
                    "prompt_tokens": response.prompt_tokens,
                    "reply_tokens": response.reply_tokens,
                }


def _brought(entry: Entry, pair: Pair, kinds: Collection[str]) -> Iterator[dict[str, Any]]:
    """The negatives a pair came with, each as the likeliest type whose checks take it and that is not taken yet."""
    tries = dict.fromkeys(kinds, 0)
    taken: set[str] = set()
    for text in pair.given:
        wanted = [kind for kind in likely_types(entry.caption, text) if kind in kinds]
        if not wanted:  # of a type this run does not want
            continue
        verdicts = {kind: validate(kind, entry.caption, text, pair.siblings) for kind in wanted}
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


def _reached(
    kind: str, attempt: int, rules: TryRules, some: Sequence[tuple[Entry, Tries]]
) -> list[tuple[str, str, list[Response]] | None]:
    """Of each caption the rejected response and the words of this attempt, and what it brought; None: needs none."""
    found = []
    for entry, known in some:
        *_, last = islice(tries(kind, entry, known, rules), attempt + 1)
        due = (last.rejected, last.told, list(last.responses.values()))
        found.append(due if last.attempt == attempt else None)
    return found


def _best(kind: str, caption: str, responses: Sequence[Response], pair: Pair) -> Verdict:
    """The verdict on the first response that is not rejected, else on the first."""
    verdicts = (judge(kind, caption, response, pair) for response in responses)
    first = next(verdicts)
    return next((one for one in chain((first,), verdicts) if one.status != "rejected"), first)
