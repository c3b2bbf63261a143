"""generate: every caption gets its hard negatives, one per type, each judged; every reply paid for is kept for good.

Two layers. Replies (`stages/replies.py`) are data: asked once per caption, type and source, kept beside the store, and
re-used by every later artifact. The negatives table is a pure function of pairs, replies and checks, in parts fixed by
content. So a killed run loses at most the shard in hand, changed checks ask nothing, a changed prompt asks one type,
and several processes can fill the replies of one run together (`assist`).

Writes negatives (NEGATIVES), one row per candidate, rejected ones with their reason; card.md and card.html, which say
how good they are.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow.parquet as pq
from pydantic import Field, field_validator

from pipeline import artifact, tables
from pipeline.artifact import SCRATCH
from pipeline.config import Config as BaseConfig
from pipeline.config import placement
from pipeline.errors import UserError
from pipeline.schema import NEGATIVE_TYPES, NEGATIVES
from pipeline.stage import Inputs, Progress, Stage
from stages import artefacts, card, prompts, shards
from stages.checks import judge
from stages.language_model import LINE, Ask, LanguageModel, Replay, Server
from stages.prompts import NegativeType, Prompt
from stages.replies import Kept, Replies
from stages.shards import Entry, Pair, Shards
from stages.words import LEXICON

ROOT = Path(__file__).parents[1]
NO_PROMPT = "none"
PAPERS = (".gitattributes", "acceptance.json")
"""Files of a model folder that change nothing it says."""


class Config(BaseConfig):
    """Who writes the negatives, of which types, and what is tolerated."""

    backend: Literal["vllm", "openai", "rules", "replay"] = Field(
        "vllm", description="vllm, openai (a server), rules (no model), or replay (a file)"
    )
    model: str = Field(
        "data/language_model",
        description="vllm: model folder or hub name; openai: the server's name of it; replay: the file; rules: unused",
    )
    revision: str | None = Field(None, description="revision of a hub model")
    types: tuple[NegativeType, ...] = Field(get_args(NegativeType), description="negative types to make; [] makes none")
    prompts: str = Field("english", description="prompt set below data/prompts, or a folder of your own")
    examples_per_prompt: int = Field(50, ge=0, description="in-context examples per prompt, the first of the file")
    temperature: float = Field(0.7, ge=0, le=2, description="sampling temperature; 0 = greedy")
    top_p: float = Field(0.9, gt=0, le=1, description="nucleus sampling")
    seed: int = Field(42, ge=0, description="seed of all sampling")
    repair_attempts: int = Field(1, ge=0, le=5, description="further tries, other seed, for a rejected reply")
    max_reject_rate: float = Field(
        0.5, ge=0, le=1, description="share of pair x type left without an answer that fails"
    )
    refine: Literal["off", "drop"] = Field("off", description="drop: reject what a text-only classifier gives away")
    blind_sample: int = Field(4000, ge=100, description="accepted negatives per type the blind test looks at")
    price_per_hour: float | None = Field(None, ge=0, description="of the generating machine, for the card's costs")
    shard_size: int = Field(8192, ge=1, description="captions per shard and part; the most that a kill can cost")
    base_url: str = placement("http://127.0.0.1:8000/v1", description="openai: address of the server")
    concurrency: int = placement(64, ge=1, description="openai: requests at once")
    timeout: float = placement(120.0, gt=0, description="openai: seconds to wait for one answer")
    structured: bool = Field(True, description="openai: send vLLM's structured_outputs; off for servers that refuse it")
    engine: dict[str, Any] = placement(
        {}, description="vllm: further arguments of vllm.LLM (tensor_parallel_size, ...)"
    )

    @field_validator("types")
    @classmethod
    def _each_once(cls, types: tuple[NegativeType, ...]) -> tuple[NegativeType, ...]:
        if len(set(types)) != len(types):
            raise ValueError("a type stands twice")
        return tuple(kind for kind in NEGATIVE_TYPES if kind in types)  # type: ignore[misc]


def outside(config: Config) -> dict[str, str]:
    """Digests of the model, the prompts told to it, and the lexicon of the checks."""
    if not config.types:
        return {}
    told = {f"prompt {kind}": _prompt_digest(config, prompt) for kind, prompt in _prompts(config).items()}
    return {"model": _model_digest(config), "lexicon": artifact.path_digest(LEXICON), **told}


def run(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Make the `negatives` artifact.

    Raises UserError when the model cannot be had, or when more candidates than `max_reject_rate` failed; replies that
    came in until then stay paid for.
    """
    start = time.monotonic()
    work = _Work(config, inputs, out, out / SCRATCH)
    generator = work.fill(progress)
    judged = out if config.refine == "off" else out / SCRATCH / "judged"
    for index in range(work.shards.count):
        part = tables.part(judged, index)
        if not part.exists():
            tables.write(part, work.rows(index), NEGATIVES)
        progress("shards judged", index + 1, work.shards.count)
    _accept(config, out, judged, counts(judged))
    examined = artefacts.examine(judged, inputs["pairs"].path, config.blind_sample)
    facts = {
        "model": _model_name(config),
        "captions": work.shards.captions,
        "blind": {kind: found.blind._asdict() for kind, found in examined.items()},
        "paid": work.paid(),
    }
    if config.refine == "drop":
        work.refine(judged, out, examined, progress)
        again = artefacts.examine(out, inputs["pairs"].path, config.blind_sample)
        facts["blind_refined"] = {kind: found.blind._asdict() for kind, found in again.items()}
    facts |= {"types": counts(out)}
    card.write(out, inputs["pairs"].path, facts, config.model_dump(mode="json"))
    return {**facts, "generator": generator, "seconds": round(time.monotonic() - start, 1)}


def render_prompt(config: Config, kind: str, caption: str) -> str:
    """The exact chat a caption gets, as text. Raises UserError for an unknown type, or a backend that reads none."""
    if kind not in NEGATIVE_TYPES:
        raise UserError("prompt", f"no type {kind!r}", f"one of {', '.join(NEGATIVE_TYPES)}", "name one of them")
    if config.backend in ("rules", "replay"):
        raise UserError("prompt", f"backend {config.backend} reads no prompt", "vllm or openai", "generate.backend")
    prompt = prompts.load(config.prompts, [kind], config.examples_per_prompt)[kind]
    return prompts.show([*prompt.prefix(config.examples_per_prompt), {"role": "user", "content": caption}])


def assist(config: Config, inputs: Inputs, out: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
    """Fill the replies of a run together with the process that makes its artifact, from this or another machine.

    Args:
        out: the working folder of the artifact in the making.
        scratch: a folder of this process's own.
    """
    return _Work(config, inputs, out, scratch).fill(progress)


class _Work:
    """One run's captions, prompts and replies."""

    def __init__(self, config: Config, inputs: Inputs, out: Path, scratch: Path) -> None:
        self._config, self._prompts = config, _prompts(config)
        self.shards: Shards = shards.make(inputs["pairs"].path, scratch / "plan.parquet", config.shard_size)
        self._model = _Lazy(lambda: _open(config, self.shards, scratch / "engine.log"))
        home, faults = out.parents[2] / "replies", out / SCRATCH / "faults"
        self._replies = {
            kind: Replies.of(home, kind, _source(config, prompt, inputs), faults)
            for kind, prompt in self._prompts.items()
        }

    def fill(self, progress: Progress) -> dict[str, Any]:
        """Ask for every reply that is not there yet. Gives the generator's own facts, none when nothing was asked."""
        repairs = 0 if self._config.backend == "rules" else self._config.repair_attempts
        with closing(self._model):
            for attempt in range(1 + repairs):
                for kind in self._prompts:
                    self._fill_type(kind, attempt, progress)
            return self._model.facts()

    def _fill_type(self, kind: str, attempt: int, progress: Progress) -> None:
        """One attempt of one type, shard by shard; shards that another process holds are waited for."""
        what = f"captions, {kind}" if attempt == 0 else f"captions, {kind} again"
        total, done = self.shards.captions, 0
        waiting = list(range(self.shards.count))
        while waiting:
            held = []
            for index in waiting:
                with self._replies[kind].claim(f"{'-'.join(self.shards.bounds(index))}.{attempt}") as mine:
                    if mine:
                        done += self._fill_shard(kind, attempt, index, partial(_shifted, progress, what, done, total))
                    else:
                        held.append(index)
            if held and len(held) == len(waiting):
                time.sleep(0.5)
            waiting = held
        progress(what, total, total)

    def _fill_shard(self, kind: str, attempt: int, index: int, advance: Callable[[int], None]) -> int:
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
            replies = self._model.get().reply(kind, prefix, asks, tick)
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
                    _seed(self._config.seed, kind, attempt, entry.caption),
                    max_tokens=16 + len(entry.caption) // 2,
                    avoid=tuple(sorted(siblings - {entry.caption})),
                )
            )
        return asks

    def rows(self, index: int) -> list[dict[str, Any]]:
        """The negatives table of one shard: every candidate of every pair, judged, in order of pair, type, attempt."""
        rows = []
        entries = self.shards.read(index)
        for order, (kind, prompt) in enumerate(self._prompts.items()):
            kept = self._replies[kind].find(*self.shards.bounds(index))
            shared = {
                "type": kind,
                "model": _model_name(self._config),
                "prompt_digest": _prompt_digest(self._config, prompt),
            }
            for entry in entries:
                for pair in entry.pairs:
                    rows += [
                        ((pair.pair_id, order, row["attempt"]), {"pair_id": pair.pair_id, **shared, **row})
                        for row in _candidates(kind, entry, pair, kept)
                    ]
        return [row for _, row in sorted(rows, key=lambda keyed: keyed[0])]

    def refine(self, judged: Path, out: Path, examined: Mapping[str, artefacts.Examined], progress: Progress) -> None:
        """Write the table anew without what the blind test gives away."""
        for index in range(self.shards.count):
            captions = {
                pair.pair_id: (pair.image_key, entry.caption)
                for entry in self.shards.read(index)
                for pair in entry.pairs
            }
            rows = pq.read_table(tables.part(judged, index)).to_pylist()
            tables.write(tables.part(out, index), artefacts.refine(rows, captions, examined), NEGATIVES)
            progress("shards refined", index + 1, self.shards.count)

    def paid(self) -> dict[str, Any]:
        """What the replies to this run's captions took, per type."""
        return {kind: replies.paid(self.shards.plan) for kind, replies in self._replies.items()}


class _Lazy:
    """A language model that is started when it is first needed, and only then."""

    def __init__(self, start: Callable[[], LanguageModel]) -> None:
        self._start = start
        self._model: LanguageModel | None = None

    def get(self) -> LanguageModel:
        """The model, started."""
        if self._model is None:
            self._model = self._start()
        return self._model

    def facts(self) -> dict[str, Any]:
        """Its facts, none when it was not needed."""
        return self._model.facts() if self._model else {}

    def close(self) -> None:
        """End it, if it was started."""
        if self._model:
            self._model.close()


def _open(config: Config, plan: Shards, log: Path) -> LanguageModel:
    if config.backend == "replay":
        return Replay(Path(config.model))
    if config.backend == "rules":
        from stages.rules import SAMPLE, Rules, Vocabulary

        return Rules(Vocabulary.of(plan.sample(SAMPLE)))
    if config.backend == "openai":
        return Server(
            config.base_url,
            config.model,
            temperature=config.temperature,
            top_p=config.top_p,
            concurrency=config.concurrency,
            timeout=config.timeout,
            structured=config.structured,
        )
    from stages.engine import Engine

    return Engine(
        str(_local_model(config.model) or config.model),
        revision=config.revision,
        temperature=config.temperature,
        top_p=config.top_p,
        seed=config.seed,
        settings=config.engine,
        log=log,
    )


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


def _refused(kind: str, caption: str, kept: Kept, pair: Pair) -> bool:
    reply = kept.reply
    verdict = judge(kind, caption, reply.text, pair.siblings, finish_reason=reply.finish_reason)
    return verdict.status == "rejected"


def counts(negatives: Path) -> dict[str, Any]:
    """Per type: candidates by status, refusals by reason, pairs by what became of them, and the acceptance rate."""
    with tables.connect({"negatives": negatives}) as sql:
        candidates = sql.sql(
            "select type, status, coalesce(reason, ''), count(*) from negatives group by all order by all"
        ).fetchall()
        pairs = sql.execute(
            "select type, outcome, count(*) from (select pair_id, type, "
            "max_by(if(reason = $1, 'dropped', status), attempt) as outcome "
            "from negatives group by pair_id, type) group by all order by all",
            [artefacts.REASON],
        ).fetchall()
    types: dict[str, Any] = {
        kind: {"candidates": {}, "reasons": {}, "pairs": {}}
        for kind in NEGATIVE_TYPES
        if kind in {k for k, *_ in pairs}
    }
    for kind, status, reason, rows in candidates:
        entry = types[kind]
        entry["candidates"][status] = entry["candidates"].get(status, 0) + rows
        if reason:
            entry["reasons"][reason] = rows
    for kind, outcome, rows in pairs:
        types[kind]["pairs"][outcome] = rows
    for entry in types.values():
        entry["acceptance"] = round(entry["pairs"].get("accepted", 0) / sum(entry["pairs"].values()), 4)
    return types


def _accept(config: Config, out: Path, judged: Path, types: dict[str, Any]) -> None:
    """Fail when too many pairs got no answer; failed asks are then forgotten, so that the next start asks again."""
    wanted = sum(sum(entry["pairs"].values()) for entry in types.values())
    failed = sum(entry["pairs"].get("rejected", 0) for entry in types.values())
    if failed <= config.max_reject_rate * wanted:
        return
    with tables.connect({"negatives": judged}) as sql:
        kind, reason, rows, pair, reply = sql.sql(
            "select type, reason, count(*), first(pair_id), first(raw_reply) from negatives "
            "where status = 'rejected' group by type, reason order by 3 desc, 1, 2 limit 1"
        ).fetchall()[0]
    shutil.rmtree(out / SCRATCH / "faults", ignore_errors=True)
    for part in tables.files(judged):
        part.unlink()
    raise UserError(
        "generate",
        f"{failed} of {wanted} negatives rejected ({failed / wanted:.0%}), most for {reason} "
        f"({rows} {kind}, e.g. pair {pair}: {reply!r})",
        f"at most {config.max_reject_rate:.0%}",
        "try another generate.model or generate.prompts, or raise generate.max_reject_rate; replies are kept",
    )


# -- identity ----------------------------------------------------------------------------------------------------------


def _prompts(config: Config) -> dict[str, Prompt | None]:
    """The prompt of every wanted type; None where the backend is told nothing."""
    if config.backend in ("rules", "replay"):
        return dict.fromkeys(config.types)
    return dict(prompts.load(config.prompts, config.types, config.examples_per_prompt))


def _prompt_digest(config: Config, prompt: Prompt | None) -> str:
    return prompt.digest(config.examples_per_prompt) if prompt else NO_PROMPT


def _source(config: Config, prompt: Prompt | None, inputs: Inputs) -> dict[str, Any]:
    """Everything that decides a reply beside the caption."""
    source = {"backend": config.backend, "model": _model_digest(config), "seed": config.seed}
    if config.backend == "rules":
        return {**source, "pairs": inputs["pairs"].digest, "lexicon": artifact.path_digest(LEXICON)}
    if config.backend == "replay":
        return source
    return {
        **source,
        "name": config.model,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "reply": LINE if config.backend == "vllm" or config.structured else None,
        "prompt": _prompt_digest(config, prompt),
    }


def _seed(seed: int, kind: str, attempt: int, caption: str) -> int:
    return int(hashlib.sha256(f"{seed}:{kind}:{attempt}:{caption}".encode()).hexdigest()[:8], 16) >> 1


def _model_name(config: Config) -> str:
    return config.backend if config.backend in ("rules", "replay") else f"{config.backend}:{config.model}"


def _local_model(model: str) -> Path | None:
    """The folder a model name means: as given, or below the checkout; None for a name on the hub."""
    return next((path for path in (Path(model).expanduser(), ROOT / model) if path.is_dir()), None)


def _model_digest(config: Config) -> str:
    """Identity of the model. A folder counts by content, large files by size and both ends, its papers not."""
    if config.backend == "rules":
        from stages.rules import VERSION

        return f"rules {VERSION}"
    if config.backend == "openai":
        return config.model
    if config.backend == "replay":
        path = Path(config.model)
        if not path.is_file():
            raise UserError(
                "generate", f"no file {config.model}", "a Parquet or JSONL file of replies", "generate.model"
            )
        return artifact.path_digest(path)
    folder = _local_model(config.model)
    if folder is None:
        if config.model.startswith((".", "/", "~", "data/")):
            raise UserError(
                "generate", f"no model folder {config.model}", "a folder, or a name on the hub", "generate.model"
            )
        return f"{config.model}@{config.revision or 'main'}"
    if not (folder / "config.json").is_file():
        raise UserError("generate", f"{folder} has no config.json", "a Hugging Face model folder", "generate.model")
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.suffix != ".md"]
    return artifact.digest({path.name: _file_digest(path) for path in files if path.name not in PAPERS})


def _file_digest(path: Path) -> str:
    size, end = path.stat().st_size, 1 << 20
    if size < 64 * end:
        return artifact.file_sha256(path)
    with path.open("rb") as handle:
        ends = [handle.read(end), (handle.seek(-end, 2), handle.read(end))[1]]
    return f"{size} {hashlib.sha256(b''.join(ends)).hexdigest()}"


STAGE = Stage(name="generate", makes="negatives", needs=("pairs",), version=1, config=Config, outside=outside, run=run)
