"""CREPE: a caption against others that are wrong in an atom, by a swap or by a negation, by complexity (productivity),
or in an atom or a compound, by whether the caption's compound stood in the training data (systematicity)."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Present, each, mean
from stages.benchmarks.rows import Row, Subset

KINDS = ("atom", "swap", "negate")
COMPLEXITIES = range(4, 13)
"""How many atoms a caption has; a file each."""
TRAINED_ON = ("cc12m", "yfcc", "laion")
SPLITS = ("seen", "unseen")
FOILS = ("atom", "comp", "combined")


def read(folder: Path) -> Iterator[Subset]:
    """prod_hard_negatives/<kind>/prod_vg_hard_negs_<kind>_complexity_<n>.csv, a subset per kind, and
    syst_hard_negatives/syst_vg_hard_negs_<seen or unseen>_compounds_in_<data>.csv, a subset per data, split and foils.

    Columns: image_id, caption, hard_negs (a list), x, y, width, height of the box that is shown. Systematicity has a
    list each in valid_hard_negs_atom, _comp and, in later files, _combined; rows without foils are left out. Images are
    Visual Genome's, below images/VG_100K or images/VG_100K_2.
    """
    for kind in KINDS:
        files = [
            path
            for count in COMPLEXITIES
            if (
                path := folder / f"prod_hard_negatives/{kind}/prod_vg_hard_negs_{kind}_complexity_{count}.csv"
            ).is_file()
        ]
        rows = [row for path in files for row in _rows(folder, path, path.stem.rpartition("_")[2])]
        if rows:
            digest = "+".join(fields.digest(path) for path in files)
            yield Subset("crepe", kind, "choice", "wrong", digest, tuple(rows))
    for data, split in product(TRAINED_ON, SPLITS):
        path = folder / f"syst_hard_negatives/syst_vg_hard_negs_{split}_compounds_in_{data}.csv"
        for foils in FOILS if path.is_file() else ():
            if rows := list(_rows(folder, path, split, f"valid_hard_negs_{foils}")):
                yield Subset("crepe", f"{data}.{split}.{foils}", "choice", "wrong", fields.digest(path), tuple(rows))


def _rows(folder: Path, path: Path, group: str, foils: str = "hard_negs") -> Iterator[Row]:
    for row_id, item in fields.table(path):
        if foils != "hard_negs" and item.get(foils, "[]").strip() == "[]":
            continue
        box = fields.box(path, row_id, item, "x", "y", "width", "height")
        name = f"{fields.text(path, row_id, item, 'image_id')}.jpg"
        part = "VG_100K_2" if (folder / "images/VG_100K_2" / name).is_file() else "VG_100K"
        _, image = fields.below(path, row_id, "image_id", name, folder / "images" / part, box)
        texts = (fields.text(path, row_id, item, "caption"), *fields.listed(path, row_id, item, foils))
        yield Row(f"{group}:{row_id}", f"{part}/{name}", image, texts, group=group)


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Hits@1: of productivity the mean of the kinds, each kind over all rows and as the mean over complexities; of
    systematicity each subset, which means something for models that were trained on that data alone."""
    kinds = [name for name in names if name in KINDS]
    made = []
    if kinds:
        says = f"Hits@1, plain mean of {len(kinds)} kinds"
        made.append(mean(f"{benchmark}.mean", says, [[(benchmark, name, None)] for name in kinds], chance=1 / 6))
    for name in kinds:
        cells = [[(benchmark, name, group)] for group in sorted(present[benchmark, name], key=int)]
        says = f"Hits@1, mean over {len(cells)} complexities"
        made.append(mean(f"{benchmark}.{name}.by_complexity", says, cells, chance=1 / 6))
    others = [name for name in names if name not in KINDS]  # how many foils a row has differs
    alone = [mean(f"{benchmark}.{name}", "Hits@1", [[(benchmark, name, None)]], subset=name) for name in others]
    return [*made, *each(benchmark, kinds, 1 / 6), *alone]
