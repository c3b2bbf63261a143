"""VL-CheckList: objects, attributes and relations exchanged in captions of four collections."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import UserError
from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Cells, Present, each, nested
from stages.benchmarks.rows import Row, Subset

KINDS = ("object", "attribute", "relation")
SOURCES = ("vg", "swig", "hake")


def read(folder: Path) -> Iterator[Subset]:
    """Files [[image, {POS: [text], NEG: [text]}], ...] below data/{Object,Attribute,Relation}; the first texts count.

    Images are below images/{vg,swig,hake}; VAW's are Visual Genome's. Subsets are named kind.source_..._part.
    """
    for path in sorted((folder / "data").rglob("*.json")):
        kind = path.relative_to(folder / "data").parts[0].lower()
        stem = path.stem if "_" in path.stem else f"{path.parent.name}_{path.stem}"
        source = {"vaw": "vg"}.get(stem.partition("_")[0], stem.partition("_")[0])
        if kind not in KINDS or source not in SOURCES:
            raise UserError(
                "evaluate", f"{path} is no file of this benchmark", "data/{Object,Attribute,Relation}", "move it away"
            )
        rows = []
        for row_id, item in fields.items(path):
            if not isinstance(item, list) or len(item) != 2:
                fields.wrong(path, row_id, "row", item, "[image, {POS, NEG}]")
            given = fields.worded(path, row_id, "image", item[0])
            name, image = fields.below(path, row_id, "image", given, folder / "images" / source)
            texts = [fields.field(path, row_id, item[1], side, list) for side in ("POS", "NEG")]
            if not all(texts):
                fields.wrong(path, row_id, "POS, NEG", texts, "a text in each")
            pair = tuple(fields.worded(path, row_id, "POS, NEG", side[0]) for side in texts)
            rows.append(Row(row_id, f"{source}/{name}", image, pair))
        yield Subset("vl_checklist", f"{kind}.{stem}", "choice", "wrong", fields.digest(path), tuple(rows))


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Each kind: the sources of a part count alike, and so do the parts of a kind. Then each file."""
    made = []
    for kind in KINDS:
        parts: dict[str, list[Cells]] = {}
        for name in names:
            if name.startswith(f"{kind}."):
                parts.setdefault(name.rpartition("_")[2], []).append(((((benchmark, name, None),), 1.0),))
        if parts:
            says = f"mean over {', '.join(parts)}; of each, mean of its files, {sum(map(len, parts.values()))} in all"
            made.append(Aggregate(f"{benchmark}.{kind}", says, nested(list(parts.values())), chance=0.5))
    return [*made, *each(benchmark, names, 0.5)]
