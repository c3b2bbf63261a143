"""A few captions through the real generator and checks: what is accepted, what is rejected, what all would take."""

import time
from itertools import groupby
from pathlib import Path
from typing import Any

from pipeline import tables
from pipeline.artifact import SCRATCH, Artifact
from pipeline.schema import NEGATIVES
from pipeline.stage import Progress
from stages.generate import negatives
from stages.generate.backends import BACKENDS
from stages.generate.candidates import Work
from stages.generate.config import Config
from stages.pages import CARDS, changed_words, render


def attempt(config: Config, pairs: Artifact, count: int, out: Path, progress: Progress) -> dict[str, Any]:
    """Generate and check for `count` captions of the pairs, drawn at random, the same each time; nothing is refined.

    Args:
        config: the stage's settings; its limits of errors and rejections do not end a trial.
        pairs: the artifact.
        count: captions.
        out: working folder below the home, as of the stage: responses are kept there, and a later run uses them.
        progress: of the requests.

    Returns:
        Plain data: model, backend, seconds from start to end, rows (a caption and what became of it by type), types
        (as on the card), and of the captions `tried` and of `all`: responses, tokens, seconds and money. Seconds are
        those of the requests, whenever they were made; None where requests cost none, money also without a price.

    Raises UserError when the model cannot be had, TransientError when it is gone.
    """
    start = time.monotonic()
    patient = config.model_copy(update={"max_reject_rate": 1.0, "max_error_rate": 1.0})
    with Work(patient, {"pairs": pairs}, out, out / SCRATCH, limit=count) as work:
        work.fill(progress)
        shards = range(work.shards.count)
        entries = [entry for index in shards for entry in work.shards.read(index)]
        rows = [row for index in shards for row in work.rows(index)]
        work.forget_faults()
        paid = work.paid().values()
    tables.write(tables.part(out, 0), rows, NEGATIVES)
    by_pair = {pair: list(found) for pair, found in groupby(rows, key=lambda row: row["pair_id"])}
    sums = {key: sum(one[key] for one in paid) for key in ("replies", "prompt_tokens", "reply_tokens", "seconds")}
    with tables.connect({"pairs": pairs.table_folder("pairs")}) as sql:
        captions = sql.execute("select count(distinct caption) from pairs").fetchall()[0][0]
    return {
        "model": BACKENDS[config.backend].name(config),
        "backend": config.backend,
        "seconds": round(time.monotonic() - start, 1),
        "rows": [
            {"caption": entry.caption, "types": _by_type(entry.caption, by_pair.get(entry.pairs[0].pair_id, []))}
            for entry in entries
        ],
        "types": negatives.counts(out),
        "tried": _cost(sums, len(entries), len(entries), config.price_per_hour),
        "all": _cost(sums, len(entries), captions, config.price_per_hour),
    }


def page(found: dict[str, Any], name: str, config: Config) -> str:
    """What was tried, as one HTML page."""
    rows = [
        {
            **row,
            "types": {
                kind: {**one, "words": changed_words(row["caption"], one["accepted"] or "")}
                for kind, one in row["types"].items()
            },
        }
        for row in found["rows"]
    ]
    facts = {**found, "rows": rows}
    return render("try.html", {"found": facts, "name": name, "config": config.model_dump(mode="json")}, CARDS)


def _by_type(caption: str, rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Type -> the accepted text or None, whether the type is not applicable, and what was rejected for what."""
    return {
        kind: {
            "accepted": next((row["text"] for row in tries if row["status"] == "accepted"), None),
            "not_applicable": any(row["status"] == "not_applicable" for row in tries),
            "rejected": [
                {"text": row["raw_reply"], "reason": row["reason"]} for row in tries if row["status"] == "rejected"
            ],
        }
        for kind, found in groupby(rows, key=lambda row: row["type"])
        for tries in [list(found)]
    }


def _cost(sums: dict[str, float], tried: int, captions: int, price: float | None) -> dict[str, Any]:
    """What so many captions take at the rate of those that were tried."""
    share = captions / max(tried, 1)
    seconds = sums["seconds"] * share or None
    return {
        "captions": captions,
        **{key: round(sums[key] * share) for key in ("replies", "prompt_tokens", "reply_tokens")},
        "seconds": seconds and round(seconds, 1),
        "money": None if price is None or seconds is None else round(seconds / 3600 * price, 2),
    }
