"""The data card of a negatives artifact, Markdown and HTML: acceptance, reasons, blind test, cost, samples."""

from pathlib import Path
from typing import Any

from pipeline import tables
from pipeline.schema import NEGATIVE_TYPES, PARAPHRASE

TEMPLATES = Path(__file__).parents[1] / "data" / "card"
SAMPLES = 50
"""Accepted negatives shown per type: those of the smallest pair ids, which are hashes, so a random sample."""


def write(out: Path, pairs: Path, facts: dict[str, Any], config: dict[str, Any]) -> None:
    """Write card.md and card.html beside a negatives table.

    Args:
        out: folder of the negatives table.
        pairs: folder of the pairs table.
        facts: model, captions, types (see `generate.counts`), blind, paid, and blind_refined where there is one.
        config: the stage's settings.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: bool(name) and ".html" in str(name),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    seconds = sum(row["seconds"] for row in facts["paid"].values())
    shown = {
        "facts": facts,
        "config": config,
        "samples": samples(out, pairs),
        "hours_per_million": seconds / 3600 * 1e6 / facts["captions"] if facts["captions"] else 0.0,
    }
    for name in ("card.md", "card.html"):
        unfinished = out / f".{name}.tmp"
        unfinished.write_text(environment.get_template(f"{name}.j2").render(shown), encoding="utf-8")
        tables.finish(unfinished, out / name)


def samples(out: Path, pairs: Path) -> dict[str, list[tuple[str, str]]]:
    """Type -> (caption, negative) of up to SAMPLES accepted negatives."""
    with tables.connect({"negatives": out, "pairs": pairs}) as sql:
        rows = sql.execute(
            "select type, caption, text from negatives join pairs using (pair_id) where status = 'accepted' "
            "qualify row_number() over (partition by type order by pair_id) <= $1 order by type, pair_id",
            [SAMPLES],
        ).fetchall()
    found = {
        kind: [(caption, text) for named, caption, text in rows if named == kind]
        for kind in (*NEGATIVE_TYPES, PARAPHRASE)
    }
    return {kind: chosen for kind, chosen in found.items() if chosen}
