"""From responses to the negatives table: checked parts, the blind test, refinement, and the card beside them."""

import time
from collections import Counter
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from pipeline import tables
from pipeline.artifact import SCRATCH
from pipeline.errors import UserError
from pipeline.negative_types import KINDS
from pipeline.schema import PROMPTS
from pipeline.stage import Inputs, Progress
from stages.generate import card, limits, prompts, refine
from stages.generate.backends import BACKENDS
from stages.generate.candidates import Work
from stages.generate.config import Config


def make(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Write the table and its card into `out`; the facts for the manifest.

    Raises UserError when the model cannot be had, or more requests failed or candidates were rejected than allowed;
    TransientError when the model is gone.
    """
    start = time.monotonic()
    with Work(config, inputs, out, out / SCRATCH) as work:
        work.fill(progress)
        checked = out if config.refine == "off" else out / SCRATCH / "unrefined"
        work.check(checked, progress)
        types = counts(checked)
        try:
            limits.hold(config, checked, types)
        except UserError:
            work.forget_faults()
            for part in tables.files(checked):
                part.unlink()
            raise

        blind_test = partial(refine.examine, pairs=inputs["pairs"].path, limit=config.blind_sample, crew=work.crew)
        examined = blind_test(checked, aim=config.refine in ("rebalance", "reweight"))
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
            facts["blind_refined"] = _blind(blind_test(out, seed=refine.CARD))
        facts |= {"types": types}
        tables.write(tables.part(out / "prompts", 0), prompts.rows(config), PROMPTS)
        card.write(out, inputs["pairs"].path, facts, config.model_dump(mode="json"))
        return {**facts, "generator": work.facts, "seconds": round(time.monotonic() - start, 1)}


def assist(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Request what the maker of `out` still lacks; the model's own facts."""
    with TemporaryDirectory(prefix="degla-") as scratch, Work(config, inputs, out, Path(scratch)) as work:
        work.fill(progress)
        return work.facts


def counts(negatives: Path) -> dict[str, Any]:
    """Per type: candidates by status, rejections by reason, pairs by what became of them ("error" where no request
    brought a text), and the acceptance rate.
    """
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
                "select type, outcome, count(*) from (select type, "
                "case when bool_or(status = 'accepted') then 'accepted' "
                "when bool_and(coalesce(reason, '') = 'error') then 'error' "
                "else max_by(if(reason = $1, 'dropped', status), attempt) end as outcome "
                "from negatives group by pair_id, type) group by all",
                [refine.REASON],
            ).fetchall():
                pairs[key[0], key[1]] += rows
    types: dict[str, Any] = {
        kind: {"candidates": {}, "reasons": {}, "pairs": {}} for kind in KINDS if kind in {named for named, _ in pairs}
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
