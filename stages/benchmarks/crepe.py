"""CREPE, productivity: a caption against five that are wrong in one atom, by a swap or by a negation, by complexity."""

from collections.abc import Iterator
from pathlib import Path

from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Present, each, mean
from stages.benchmarks.rows import Row, Subset

KINDS = ("atom", "swap", "negate")
COMPLEXITIES = range(4, 13)
"""How many atoms a caption has; a file each."""


def read(folder: Path) -> Iterator[Subset]:
    """prod_hard_negatives/<kind>/prod_vg_hard_negs_<kind>_complexity_<n>.csv, a subset per kind.

    Columns: image_id, caption, hard_negs (a list), x, y, width, height of the box that is shown. Images are Visual
    Genome's, below images/VG_100K or images/VG_100K_2.
    """
    for kind in KINDS:
        files = [
            path
            for count in COMPLEXITIES
            if (
                path := folder / f"prod_hard_negatives/{kind}/prod_vg_hard_negs_{kind}_complexity_{count}.csv"
            ).is_file()
        ]
        rows = [row for path in files for row in _rows(folder, path)]
        if rows:
            digest = "+".join(fields.digest(path) for path in files)
            yield Subset("crepe", kind, "choice", "wrong", digest, tuple(rows))


def _rows(folder: Path, path: Path) -> Iterator[Row]:
    complexity = path.stem.rpartition("_")[2]
    for row_id, item in fields.table(path):
        box = fields.box(path, row_id, item, "x", "y", "width", "height")
        name = f"{fields.text(path, row_id, item, 'image_id')}.jpg"
        part = "VG_100K_2" if (folder / "images/VG_100K_2" / name).is_file() else "VG_100K"
        _, image = fields.below(path, row_id, "image_id", name, folder / "images" / part, box)
        texts = (fields.text(path, row_id, item, "caption"), *fields.listed(path, row_id, item, "hard_negs"))
        yield Row(f"{complexity}:{row_id}", f"{part}/{name}", image, texts, group=complexity)


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Hits@1: the mean of the kinds; each kind over all rows, and as the mean over complexities."""
    says = f"Hits@1, plain mean of {len(names)} kinds"
    made = [mean(f"{benchmark}.mean", says, [[(benchmark, name, None)] for name in names], chance=1 / 6)]
    for name in names:
        cells = [[(benchmark, name, group)] for group in sorted(present[benchmark, name], key=int)]
        says = f"Hits@1, mean over {len(cells)} complexities"
        made.append(mean(f"{benchmark}.{name}.by_complexity", says, cells, chance=1 / 6))
    return [*made, *each(benchmark, names, 1 / 6)]
