"""SugarCrepe++: two captions that say the same and a negative, against the image and among themselves."""

from collections.abc import Iterator
from pathlib import Path

from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Present, each, mean
from stages.benchmarks.rows import Row, Subset


def read(folder: Path) -> Iterator[Subset]:
    """Each file twice: image against three texts (itt), and the three texts among themselves (tot)."""
    for path in sorted(folder.glob("*.json")):
        rows = []
        for row_id, item in fields.items(path):
            name, image = fields.image(path, row_id, item, "filename", folder / "images")
            texts = fields.texts(path, row_id, item, "caption", "caption2", "negative_caption")
            rows.append(Row(row_id, name, image, texts))
        without = tuple(Row(row.row_id, row.image_key, None, row.texts) for row in rows)
        digest = fields.digest(path)
        yield Subset("sugarcrepe_pp", f"{path.stem}.itt", "both", "wrong", digest, tuple(rows))
        yield Subset("sugarcrepe_pp", f"{path.stem}.tot", "texts", "wrong", digest, without)


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Both tasks, then each subset."""
    made = []
    for task, says in (("itt", "both captions beat the negative"), ("tot", "the captions are nearest to each other")):
        rows = [[(benchmark, name, None)] for name in names if name.endswith(f".{task}")]
        if rows:
            made.append(mean(f"{benchmark}.{task}", f"mean of {len(rows)} subsets: {says}", rows, chance=1 / 3))
    return [*made, *each(benchmark, names, 1 / 3)]
