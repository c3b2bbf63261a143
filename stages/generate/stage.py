"""generate: every caption gets its hard negatives, one per type, each judged; every reply paid for is kept for good.

Two layers. Replies (replies.py) are data: asked once per caption, type and source, kept beside the store, and
re-used by every later artifact. The negatives table is a pure function of pairs, replies and checks, in parts fixed by
content. So a killed run loses at most the shard in hand, changed checks ask nothing, a changed prompt asks one type,
and several processes can fill the replies of one run together (`assist`).

Writes negatives (NEGATIVES), one row per candidate, rejected ones with their reason; card.md and card.html, which say
how good they are.
"""

import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import duckdb
from pydantic import Field, field_validator, model_validator

from pipeline import artifact, tables
from pipeline.artifact import SCRATCH
from pipeline.config import Config as BaseConfig
from pipeline.config import placement
from pipeline.errors import UserError
from pipeline.schema import NEGATIVE_TYPES, NEGATIVES, PARAPHRASE, NegativeType
from pipeline.stage import Inputs, Progress, Stage
from stages.generate import card, prompts
from stages.generate import refine as giveaways
from stages.generate.backends import UNTOLD, model_digest, model_name, prompt_digest, prompts_of
from stages.generate.candidates import Work
from stages.text.words import LEXICON


class Config(BaseConfig):
    """Who writes the negatives, of which types, and what is tolerated."""

    backend: Literal["vllm", "openai", "rules", "replay", "given"] = Field(
        "vllm",
        description="vllm, openai (a server), rules (no model), replay (a file), or given (what the source brought)",
    )
    model: str = Field(
        "data/language_model",
        description="vllm: model folder or hub name; openai: the server's name of it; replay: the file; rules: unused",
    )
    revision: str | None = Field(None, description="revision of a hub model")
    types: tuple[NegativeType, ...] = Field(get_args(NegativeType), description="negative types to make; [] makes none")
    paraphrases: bool = Field(False, description="also ask for rewrites that keep the meaning (hard positives)")
    prompts: str = Field("english", description="prompt set below data/prompts, or a folder of your own")
    examples_per_prompt: int = Field(50, ge=0, description="in-context examples per prompt, the first of the file")
    temperature: float = Field(0.7, ge=0, le=2, description="sampling temperature; 0 = greedy")
    top_p: float = Field(0.9, gt=0, le=1, description="nucleus sampling")
    seed: int = Field(42, ge=0, description="seed of all sampling")
    repair_attempts: int = Field(1, ge=0, le=5, description="further tries, other seed, for a rejected reply")
    max_reject_rate: float = Field(
        0.5, ge=0, le=1, description="share of pair x type left without an answer that fails"
    )
    refine: giveaways.Refine = Field(
        "off",
        description="negatives that text alone gives away: off, drop, reweight or rebalance (refine.py)",
    )
    refine_margin: float = Field(0.5, gt=0, lt=1, description="drop: gap of a scorer from which a negative goes")
    likelihood: bool = Field(False, description="vllm: the model's log-probability of both texts as a second scorer")
    blind_sample: int = Field(4000, ge=100, description="accepted negatives per type the blind test looks at")
    price_per_hour: float | None = Field(None, ge=0, description="of the generating machine, for the card's costs")
    shard_size: int = Field(8192, ge=1, description="captions per shard and part; the most that a kill can cost")
    base_url: str = placement("http://127.0.0.1:8000/v1", description="openai: address of the server")
    workers: int = placement(
        1, ge=1, description="tasks that fill one run's replies together (DEGLA_TASK_RUNNER: where)"
    )
    concurrency: int = placement(64, ge=1, description="openai: requests at once")
    timeout: float = placement(120.0, gt=0, description="openai: seconds to wait for one answer")
    structured: bool = Field(True, description="openai: send vLLM's structured_outputs; off for servers that refuse it")
    engine: dict[str, Any] = placement(
        {}, description="vllm: further arguments of vllm.LLM (tensor_parallel_size, ...)"
    )

    @field_validator("base_url")
    @classmethod
    def _holds_no_secret(cls, base_url: str) -> str:
        if "@" in base_url or "?" in base_url:
            raise ValueError("an address alone: the key belongs into OPENAI_API_KEY, recipes and manifests are kept")
        return base_url

    @field_validator("engine")
    @classmethod
    def _is_data(cls, engine: dict[str, Any]) -> dict[str, Any]:
        for name, value in _leaves(engine):
            if name in ("trust_remote_code", "hf_token"):
                raise ValueError(f"{name} is not taken from a recipe: it runs a stranger's code, or is a secret")
            if isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w*([.:][A-Za-z_]\w*)+|.*\.py", value):
                raise ValueError(f"{name} = {value} names code; a recipe is data")
        return engine

    @field_validator("types")
    @classmethod
    def _each_once(cls, types: tuple[NegativeType, ...]) -> tuple[NegativeType, ...]:
        if len(set(types)) != len(types):
            raise ValueError("a type stands twice")
        return tuple(kind for kind in NEGATIVE_TYPES if kind in types)  # type: ignore[misc]

    @model_validator(mode="after")
    def _scorer_is_there(self) -> "Config":
        if self.likelihood and self.backend != "vllm":
            raise ValueError(f"likelihood needs backend vllm; got {self.backend}")
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is asked for: the negative types, and paraphrases if they are wanted."""
        return (*self.types, PARAPHRASE) if self.paraphrases else self.types


def _leaves(settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name and value of every setting, nested ones too; of a list each item."""
    for name, value in settings.items():
        for item in value if isinstance(value, list | tuple) else [value]:
            yield from _leaves(item) if isinstance(item, dict) else [(name, item)]


def outside(config: Config) -> dict[str, str]:
    """Digests of the model, the prompts told to it, and the lexicon of the checks."""
    if not config.kinds:
        return {}
    told = {f"prompt {kind}": prompt_digest(config, prompt) for kind, prompt in prompts_of(config).items()}
    return {"model": model_digest(config), "lexicon": artifact.path_digest(LEXICON), **told}


def run(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Make the `negatives` artifact.

    Raises UserError when the model cannot be had, or when more candidates than `max_reject_rate` failed; replies that
    came in until then stay paid for.
    """
    start = time.monotonic()
    with Work(config, inputs, out, out / SCRATCH) as work:
        work.fill(progress)
        judged = out if config.refine == "off" else out / SCRATCH / "judged"
        for index in range(work.shards.count):
            part = tables.part(judged, index)
            if not part.exists():
                tables.write(part, work.rows(index), NEGATIVES)
            progress("shards judged", index + 1, work.shards.count)
        types = counts(judged)
        _accept(config, out, judged, types)

        examined = giveaways.examine(judged, inputs["pairs"].path, config.blind_sample)
        facts = {
            "model": model_name(config),
            "captions": work.shards.captions,
            "blind": _blind(examined),
            "paid": work.paid(),
        }
        if config.refine != "off":
            work.refine(judged, out, examined, progress)
            types = counts(out)
        if config.refine in ("drop", "rebalance"):
            facts["blind_refined"] = _blind(giveaways.examine(out, inputs["pairs"].path, config.blind_sample))
        facts |= {"types": types}
        card.write(out, inputs["pairs"].path, facts, config.model_dump(mode="json"))
        return {**facts, "generator": work.facts, "seconds": round(time.monotonic() - start, 1)}


def render_prompt(config: Config, kind: str, caption: str) -> str:
    """The exact chat a caption gets, as text. Raises UserError for an unknown type, or a backend that reads none."""
    if kind not in (*NEGATIVE_TYPES, PARAPHRASE):
        known = ", ".join((*NEGATIVE_TYPES, PARAPHRASE))
        raise UserError("prompt", f"no type {kind!r}", f"one of {known}", "name one of them")
    if config.backend in UNTOLD:
        raise UserError("prompt", f"backend {config.backend} reads no prompt", "vllm or openai", "generate.backend")
    prompt = prompts.load(config.prompts, [kind], config.examples_per_prompt)[kind]
    return prompts.show([*prompt.prefix(config.examples_per_prompt), {"role": "user", "content": caption}])


def assist(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Ask for what a run still lacks, together with the process that makes its artifact in `out`, from any machine."""
    with TemporaryDirectory(prefix="degla-") as scratch, Work(config, inputs, out, Path(scratch)) as work:
        work.fill(progress)
        return work.facts


def _blind(examined: dict[str, giveaways.Examined]) -> dict[str, Any]:
    return {kind: {name: one._asdict() for name, one in test.blind.items()} for kind, test in examined.items()}


def counts(negatives: Path) -> dict[str, Any]:
    """Per type: candidates by status, refusals by reason, pairs by what became of them, and the acceptance rate."""
    candidates: Counter[tuple[str, str, str]] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for part in tables.files(negatives):  # a pair's candidates are in one part, so memory is that of a part
        with duckdb.connect() as sql:
            sql.read_parquet(str(part)).create_view("negatives")
            for *key, rows in sql.sql(
                "select type, status, coalesce(reason, ''), count(*) from negatives group by all"
            ).fetchall():
                candidates[key[0], key[1], key[2]] += rows
            for *key, rows in sql.execute(
                "select type, outcome, count(*) from (select type, max_by(if(reason = $1, 'dropped', status), attempt) "
                "as outcome from negatives group by pair_id, type) group by all",
                [giveaways.REASON],
            ).fetchall():
                pairs[key[0], key[1]] += rows
    types: dict[str, Any] = {
        kind: {"candidates": {}, "reasons": {}, "pairs": {}}
        for kind in (*NEGATIVE_TYPES, PARAPHRASE)
        if kind in {named for named, _ in pairs}
    }
    for (kind, status, reason), rows in sorted(candidates.items()):
        entry = types[kind]
        entry["candidates"][status] = entry["candidates"].get(status, 0) + rows
        if reason:
            entry["reasons"][reason] = rows
    for (kind, outcome), rows in sorted(pairs.items()):
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


STAGE = Stage(
    name="generate", makes="negatives", needs=("pairs",), version=2, config=Config, outside=outside, run=run,
    assist=assist,
)  # fmt: skip
