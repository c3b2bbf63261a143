"""From responses to the negatives table: checked parts, the blind test, refinement, and the card beside them."""

import shutil
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from pipeline import tables
from pipeline.artifact import SCRATCH
from pipeline.errors import UserError
from pipeline.negative_types import NEGATIVE_TYPES, PARAPHRASE
from pipeline.schema import NEGATIVES
from pipeline.stage import Inputs, Progress
from stages.generate import card, refine
from stages.generate.backends import BACKENDS
from stages.generate.candidates import Work
from stages.generate.config import Config


def make(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Write the table and its card into `out`; the facts for the manifest.

    Raises UserError when the model cannot be had, or when more candidates than `max_reject_rate` were rejected.
    """
    start = time.monotonic()
    with Work(config, inputs, out, out / SCRATCH) as work:
        work.fill(progress)
        checked = out if config.refine == "off" else out / SCRATCH / "unrefined"
        for index in range(work.shards.count):
            part = tables.part(checked, index)
            if not part.exists():
                tables.write(part, work.rows(index), NEGATIVES)
            progress("shards checked", index + 1, work.shards.count)
        types = counts(checked)
        _accept(config, out, checked, types)

        examined = refine.examine(checked, inputs["pairs"].path, config.blind_sample)
        facts = {
            "model": BACKENDS[config.backend].name(config),
            "captions": work.shards.captions,
            "blind": _blind(examined),
            "paid": work.paid(),
        }
        if config.refine != "off":
            work.refine(checked, out, examined, progress)
            types = counts(out)
        if config.refine in ("drop", "rebalance"):
            facts["blind_refined"] = _blind(refine.examine(out, inputs["pairs"].path, config.blind_sample))
        facts |= {"types": types}
        card.write(out, inputs["pairs"].path, facts, config.model_dump(mode="json"))
        return {**facts, "generator": work.facts, "seconds": round(time.monotonic() - start, 1)}


def assist(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Request what the maker of `out` still lacks; the model's own facts."""
    with TemporaryDirectory(prefix="degla-") as scratch, Work(config, inputs, out, Path(scratch)) as work:
        work.fill(progress)
        return work.facts


def counts(negatives: Path) -> dict[str, Any]:
    """Per type: candidates by status, rejections by reason, pairs by what became of them, and the acceptance rate."""
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
                [refine.REASON],
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


def _blind(examined: dict[str, refine.Examined]) -> dict[str, Any]:
    return {kind: {name: one._asdict() for name, one in test.blind.items()} for kind, test in examined.items()}


def _accept(config: Config, out: Path, checked: Path, types: dict[str, Any]) -> None:
    """Fail when too many pairs got no negative; failed requests are then forgotten, so that the next start retries."""
    wanted = sum(sum(entry["pairs"].values()) for entry in types.values())
    failed = sum(entry["pairs"].get("rejected", 0) for entry in types.values())
    if failed <= config.max_reject_rate * wanted:
        return
    with tables.connect({"negatives": checked}) as sql:
        kind, reason, rows, pair, reply = sql.sql(
            "select type, reason, count(*), first(pair_id), first(raw_reply) from negatives "
            "where status = 'rejected' group by type, reason order by 3 desc, 1, 2 limit 1"
        ).fetchall()[0]
    shutil.rmtree(out / SCRATCH / "faults", ignore_errors=True)
    for part in tables.files(checked):
        part.unlink()
    raise UserError(
        "generate",
        f"{failed} of {wanted} negatives rejected ({failed / wanted:.0%}), most for {reason} "
        f"({rows} {kind}, e.g. pair {pair}: {reply!r})",
        f"at most {config.max_reject_rate:.0%}",
        "try another generate.model or generate.prompts, or raise generate.max_reject_rate; responses are cached",
    )
