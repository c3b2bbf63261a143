"""VALSE: eleven files of one image, a caption and a foil, seven linguistic phenomena."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Cells, Present, Selector, each, mean, nested
from stages.benchmarks.rows import Row, Subset

PHENOMENA = {
    "existence": "existence",
    "plurals": "plurality",
    "relations": "relations",
    "foil-it": "foil-it",
    **dict.fromkeys(("counting-hard", "counting-small-quant", "counting-adversarial"), "counting"),
    **dict.fromkeys(("action-replacement", "actant-swap"), "actions"),
    **dict.fromkeys(("coreference-standard", "coreference-hard"), "coreference"),
}
"""VALSE's eleven files by linguistic phenomenon."""


def read(folder: Path) -> Iterator[Subset]:
    """Only rows for which at least two of three annotators chose the caption, as the official scripts do."""
    for path in sorted(folder.glob("*.json")):
        rows = []
        for row_id, item in fields.items(path):
            votes = fields.field(path, row_id, item, "mturk", dict)
            if fields.field(path, row_id, {"caption": 0} | votes, "caption", int) < 2:
                continue
            name, image = fields.image(path, row_id, item, "image_file", folder / "images")
            texts = fields.texts(path, row_id, item, "caption", "foil")
            phenomenon = fields.text(path, row_id, item, "linguistic_phenomena")
            rows.append(Row(row_id, name, image, texts, group=phenomenon))
        yield Subset("valse", path.stem, "choice", "wrong", fields.digest(path), tuple(rows))


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Over the files; with all eleven there, also by the rules papers use; then each file."""
    every: dict[str, Selector] = {name: (benchmark, name, None) for name in names}
    one: dict[str, Cells] = {name: (((row,), 1.0),) for name, row in every.items()}
    files = nested([list(one.values())])
    made = [Aggregate(f"{benchmark}.mean_files", f"plain mean of the files, {len(names)} of 11", files)]
    if set(names) == set(PHENOMENA):
        phenomena = dict.fromkeys(PHENOMENA.values())
        seven = nested([[one[name] for name in names if PHENOMENA[name] == kind] for kind in phenomena])
        counting = [one[name] for name in names if PHENOMENA[name] == "counting"]
        nine = nested([counting, *([one[name]] for name in names if PHENOMENA[name] != "counting")])
        made += [
            Aggregate(f"{benchmark}.mean11", "plain mean of the 11 files (DeGLA, CE-CLIP)", files),
            Aggregate(f"{benchmark}.mean9", "mean of 9 columns, the counting files as one (CE-CLIP+)", nine),
            Aggregate(f"{benchmark}.mean7", "mean of 7 phenomena, files averaged inside (FSC-CLIP, CS-CLIP)", seven),
            mean(f"{benchmark}.micro", "accuracy over all valid rows (READ-CLIP)", [every.values()]),
        ]
    return [*(replace(item, chance=0.5) for item in made), *each(benchmark, names, 0.5)]
