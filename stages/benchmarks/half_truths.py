"""Half-Truths: a short true caption must beat the same with one wrong detail added, and lose to a true detail."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Present, each, mean
from stages.benchmarks.records import records
from stages.benchmarks.rows import Row, Subset

FILES = ("coco_qwen", "coco_mistral", "cc3m_qwen")
WORDS = ("anchor", "full_truth", "half_truth", "triplet_type")


def read(folder: Path) -> Iterator[Subset]:
    """Parquet files of {image, anchor, full_truth, half_truth, triplet_type}, each twice.

    As anchor against half truth; and with the full truth between them, the subset `<file>.ordered`.
    """
    for path in fields.only(folder, "*.parquet", *(f"{name}.parquet" for name in FILES)):
        rows = []
        for record in records(path, WORDS, ("image",), folder):
            short, full, half, kind = fields.texts(path, record.row_id, record.item, *WORDS)
            key = record.keys[0] if path.stem.startswith("coco") else f"half_truths:{record.keys[0]}"
            rows.append(Row(record.row_id, key, record.images[0], (short, full, half), group=kind))
        pairs = tuple(replace(row, texts=(row.texts[0], row.texts[2])) for row in rows)
        digest = fields.digest(path)
        yield Subset("half_truths", path.stem, "choice", "wrong", digest, pairs)
        yield Subset("half_truths", f"{path.stem}.ordered", "both", "wrong", digest, tuple(rows))


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """The plain mean of the files (HT), the same by what the wrong detail is, each file; all three in order (COR)."""
    files = [name for name in names if not name.endswith(".ordered")]
    kinds = sorted({kind for name in files for kind in present[benchmark, name]})
    made = []
    if files:
        says = f"plain mean of {len(files)} files: the caption beats the one with a wrong detail"
        made.append(mean(f"{benchmark}.mean", says, [[(benchmark, name, None)] for name in files], chance=0.5))
    for kind in kinds:
        cells = [[(benchmark, name, kind)] for name in files if kind in present[benchmark, name]]
        made.append(mean(f"{benchmark}.{kind}", f"the same, wrong {kind}", cells, chance=0.5))
    made += each(benchmark, files, 0.5)
    ordered = [name for name in names if name.endswith(".ordered")]
    if ordered:
        says = f"plain mean of {len(ordered)} files: true detail > short caption > wrong detail"
        every = [[(benchmark, name, None)] for name in ordered]
        made.append(mean(f"{benchmark}.ordered", says, every, measure="ordered", chance=1 / 6))
    return made
