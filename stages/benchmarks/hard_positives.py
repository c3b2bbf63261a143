"""Hard Positives: a caption, another that says the same, and a negative that must lose to both."""

from collections.abc import Iterator
from pathlib import Path

from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Present, mean
from stages.benchmarks.rows import Row, Subset


def read(folder: Path) -> Iterator[Subset]:
    """Two files of the same rows, data/ with the caption and swapped_data/ with one that says the same.

    Texts: caption, hard positive, hard negative (of swapped_data, as its script compares). Images are Visual
    Genome's, below images/ under the row's path without its leading "data/".
    """
    for kind in ("attributes", "relations"):
        paths = [folder / part / f"vl_checklist_{kind}.json" for part in ("data", "swapped_data")]
        if not any(path.is_file() for path in paths):
            continue
        original, swapped = (list(fields.items(path)) for path in paths)
        if len(original) != len(swapped):
            fields.wrong(paths[1], "", "rows", len(swapped), f"{len(original)}, as {paths[0]}")
        rows = []
        for (row_id, item), (_, other) in zip(original, swapped, strict=True):
            name = fields.text(paths[0], row_id, item, "image_path")
            if fields.text(paths[1], row_id, other, "image_path") != name:
                fields.wrong(paths[1], row_id, "image_path", other["image_path"], f"{name}, as {paths[0]}")
            _, image = fields.below(paths[0], row_id, "image_path", name.removeprefix("data/"), folder / "images")
            texts = (
                fields.text(paths[0], row_id, item, "true_caption"),
                *fields.texts(paths[1], row_id, other, "true_caption", "false_caption"),
            )
            rows.append(Row(row_id, name, image, texts))
        digest = "+".join(fields.digest(path) for path in paths)
        yield Subset("hard_positives", kind, "both", "wrong", digest, tuple(rows))


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Of each set: augmented accuracy, that of the original caption alone, and brittleness."""
    made = []
    for name in names:
        rows = [[(benchmark, name, None)]]
        made += [
            mean(f"{benchmark}.{name}", "augmented: both captions beat the negative", rows, chance=1 / 3, subset=name),
            mean(f"{benchmark}.{name}.original", "the first caption does", rows, measure="original", chance=0.5),
            mean(
                f"{benchmark}.{name}.brittleness",
                "the negative comes between the two captions; lower is better",
                rows,
                measure="brittle",
                chance=1 / 3,
            ),
        ]
    return made
