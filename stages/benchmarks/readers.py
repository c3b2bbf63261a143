"""Benchmarks of pairs: each one's own files, as their authors publish them, turned into rows.

Each reader takes the benchmark's folder (whose layout is given in data/benchmarks.yaml) and yields its subsets. All
raise UserError for what they cannot read; none passes a file or row over in silence.
"""

import io
from collections import Counter
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline.assets import DATA
from pipeline.errors import UserError
from stages.benchmarks import fields as annotations
from stages.benchmarks.rows import Part, Picture, Row, Subset

if TYPE_CHECKING:
    from PIL.Image import Image

REGISTRY = DATA / "benchmarks.yaml"
ORDER_OPTIONS = 5


@cache
def registry() -> dict[str, Any]:
    """`data/benchmarks.yaml`."""
    return dict(yaml.safe_load(REGISTRY.read_text()))


def sugarcrepe(folder: Path) -> Iterator[Subset]:
    """Seven dicts of {filename, caption, negative_caption}."""
    for path in sorted(folder.glob("*.json")):
        yield Subset("sugarcrepe", path.stem, "choice", "wrong", annotations.digest(path), tuple(_pairs(folder, path)))


def _pairs(folder: Path, path: Path) -> Iterator[Row]:
    for row_id, item in annotations.items(path):
        name, picture = annotations.picture(path, row_id, item, "filename", folder / "images")
        yield Row(row_id, name, picture, _texts(path, row_id, item, "caption", "negative_caption"))


def valse(folder: Path) -> Iterator[Subset]:
    """Only rows for which at least two of three annotators chose the caption, as the official scripts do."""
    for path in sorted(folder.glob("*.json")):
        rows = []
        for row_id, item in annotations.items(path):
            votes = annotations.field(path, row_id, item, "mturk", dict)
            if annotations.field(path, row_id, {"caption": 0} | votes, "caption", int) < 2:
                continue
            name, picture = annotations.picture(path, row_id, item, "image_file", folder / "images")
            texts = _texts(path, row_id, item, "caption", "foil")
            phenomenon = annotations.text(path, row_id, item, "linguistic_phenomena")
            rows.append(Row(row_id, name, picture, texts, group=phenomenon))
        yield Subset("valse", path.stem, "choice", "wrong", annotations.digest(path), tuple(rows))


def aro(folder: Path) -> Iterator[Subset]:
    """The picture is cut to the row's box. Macro groups: relations that are not symmetric; attribute pairs of >= 25."""
    readers = {
        "visual_genome_relation.json": _vg_relation,
        "visual_genome_attribution.json": _vg_attribution,
        "coco_order.json": _order,
        "flickr30k_order.json": _order,
    }
    for path in annotations.only(folder, "*.json", *readers):
        yield readers[path.name](folder, path)


def _vg_relation(folder: Path, path: Path) -> Subset:
    symmetric = frozenset(registry()["aro"]["not_in_macro"])
    rows = []
    for row_id, item in annotations.items(path):
        relation = annotations.text(path, row_id, item, "relation_name")
        rows.append(_boxed(folder, path, row_id, item, None if relation in symmetric else relation))
    return Subset("aro", "vg_relation", "choice", "wrong", annotations.digest(path), tuple(rows))


def _vg_attribution(folder: Path, path: Path) -> Subset:
    found = list(annotations.items(path))
    pairs = []
    for row_id, item in found:
        attributes = annotations.field(path, row_id, item, "attributes", list)
        pairs.append("_".join(annotations.worded(path, row_id, "attributes", one) for one in attributes))
    size = Counter(pairs)
    rows = (
        _boxed(folder, path, row_id, item, pair if size[pair] >= 25 else None)
        for (row_id, item), pair in zip(found, pairs, strict=True)
    )
    return Subset("aro", "vg_attribution", "choice", "wrong", annotations.digest(path), tuple(rows))


def _boxed(folder: Path, path: Path, row_id: str, item: Any, group: str | None) -> Row:
    box = annotations.box(path, row_id, item, "bbox_x", "bbox_y", "bbox_w", "bbox_h")
    name, picture = annotations.picture(path, row_id, item, "image_path", folder / "images", box)
    return Row(row_id, name, picture, _texts(path, row_id, item, "true_caption", "false_caption"), group=group)


def _order(folder: Path, path: Path) -> Subset:
    """The caption and its four foils; `degla data foils` makes such files."""
    rows = []
    for row_id, item in annotations.items(path):
        name, picture = annotations.picture(path, row_id, item, "image_path", folder / "images")
        options = annotations.field(path, row_id, item, "caption_options", list)
        if len(options) != ORDER_OPTIONS:
            annotations.wrong(path, row_id, "caption_options", options, f"{ORDER_OPTIONS} texts, the caption first")
        texts = tuple(annotations.worded(path, row_id, "caption_options", option) for option in options)
        rows.append(Row(row_id, name, picture, texts))
    return Subset("aro", path.stem, "choice", "right", annotations.digest(path), tuple(rows))


def sugarcrepe_pp(folder: Path) -> Iterator[Subset]:
    """Each file twice: picture against three texts (itt), and the three texts among themselves (tot)."""
    for path in sorted(folder.glob("*.json")):
        rows = []
        for row_id, item in annotations.items(path):
            name, picture = annotations.picture(path, row_id, item, "filename", folder / "images")
            rows.append(
                Row(row_id, name, picture, _texts(path, row_id, item, "caption", "caption2", "negative_caption"))
            )
        without = tuple(Row(row.row_id, row.image_key, None, row.texts) for row in rows)
        digest = annotations.digest(path)
        yield Subset("sugarcrepe_pp", f"{path.stem}.itt", "both", "wrong", digest, tuple(rows))
        yield Subset("sugarcrepe_pp", f"{path.stem}.tot", "texts", "wrong", digest, without)


def winoground(folder: Path) -> Iterator[Subset]:
    """Lines of {image_0, image_1, caption_0, caption_1}; the names are given without .png."""
    for path in annotations.only(folder, "*.jsonl", "examples.jsonl"):
        rows = []
        for row_id, item in annotations.lines(path):
            names = [annotations.text(path, row_id, item, f"image_{k}").removesuffix(".png") for k in (0, 1)]
            texts = _texts(path, row_id, item, "caption_0", "caption_1")
            first, second = (
                annotations.below(path, row_id, "image", f"{name}.png", folder / "images")[1] for name in names
            )
            rows.append(Row(row_id, names[0], first, texts, other=second))
        yield Subset("winoground", "all", "square", "wrong", annotations.digest(path), tuple(rows))


def cola(folder: Path) -> Iterator[Subset]:
    """[picture, caption, picture, caption]; pictures are given as addresses, whose last part is the file name."""
    for path in annotations.only(folder, "*.json", "COLA_multiobjects_matching_benchmark.json"):
        rows = []
        for row_id, item in annotations.items(path):
            if not isinstance(item, list) or len(item) != 4:
                annotations.wrong(path, row_id, "row", item, "[picture, caption, picture, caption]")
            one, first, two, second = (annotations.worded(path, row_id, "row", part) for part in item)
            (key, picture), (_, other) = (
                annotations.below(path, row_id, "row", address.rpartition("/")[2], folder / "images")
                for address in (one, two)
            )
            rows.append(Row(row_id, key, picture, (first, second), other=other))
        yield Subset("cola", "multi_object", "square", "wrong", annotations.digest(path), tuple(rows))


def bivlc(folder: Path) -> Iterator[Subset]:
    """The published Parquet shards with their pictures inside, or a test.csv that names picture files.

    Columns: image, caption, negative_caption, negative_image, type, subtype. One subset per type and subtype.
    """
    shards = sorted(folder.glob("*.parquet"))
    tables = [folder / "test.csv"] if (folder / "test.csv").is_file() else []
    if shards and tables:
        raise UserError("evaluate", f"{folder} holds test.csv and {shards[0].name}", "one of the two", "move one away")
    rows: dict[str, list[Row]] = {}
    for kind, row in (found for path in shards + tables for found in _bivlc_rows(folder, path)):
        rows.setdefault(kind, []).append(row)
    digest = "+".join(annotations.digest(path) for path in shards + tables)
    for kind in sorted(rows):
        yield Subset("bivlc", kind, "square", "wrong", digest, tuple(rows[kind]))


def _bivlc_rows(folder: Path, path: Path) -> Iterator[tuple[str, Row]]:
    inside = path.suffix == ".parquet"
    for index, item in enumerate(_packed_rows(path) if inside else (row for _, row in annotations.table(path))):
        row_id = f"{path.stem}:{index}"
        if inside:
            pair = [Picture(path, part=Part(read_parquet, column, index)) for column in ("image", "negative_image")]
            key = item["key"] or row_id
        else:
            (key, first), (_, second) = (
                annotations.picture(path, row_id, item, name, folder / "images") for name in ("image", "negative_image")
            )
            pair = [first, second]
        kind = "_".join(annotations.text(path, row_id, item, name) for name in ("type", "subtype"))
        texts = _texts(path, row_id, item, "caption", "negative_caption")
        yield kind, Row(row_id, str(key), pair[0], texts, other=pair[1])


def _packed_rows(path: Path) -> list[dict[str, Any]]:
    """The words of a BiVLC shard; `key` is the picture's file name where the shard keeps it."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    words = ["caption", "negative_caption", "type", "subtype"]
    try:
        shard = pq.ParquetFile(path)
        kept = shard.read([*words, "image.path"])
        lacking = {*words, "image", "negative_image"} - set(shard.schema_arrow.names)
        if lacking:
            annotations.wrong(path, "", "column", min(lacking), f"{', '.join(words)}, image, negative_image")
        keys = pc.struct_field(kept["image"], "path") if "image" in kept.column_names else pa.nulls(len(kept))
        return list(kept.select(words).append_column("key", keys).to_pylist())
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(
            "evaluate", f"{path} cannot be read: {error}", "a Parquet shard of BiVLC", annotations.FIX
        ) from error


@lru_cache(maxsize=4)
def _row_group(path: Path, group: int, column: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return list(pq.ParquetFile(path).read_row_group(group, columns=[column])[column].to_pylist())


def read_parquet(path: Path, column: str, row: int) -> "Image":
    """The picture in one cell of a Parquet file, as RGB; the cell is Hugging Face's {bytes, path}."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    from pipeline.clip import PICTURES

    try:
        shape, group, inside = pq.read_metadata(path), 0, row
        while inside >= shape.row_group(group).num_rows:
            inside -= shape.row_group(group).num_rows
            group += 1
        content = io.BytesIO(_row_group(path, group, column)[inside]["bytes"])
        with Image.open(content, formats=PICTURES) as image:
            return image.convert("RGB")
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException, Image.DecompressionBombError) as error:
        raise UserError(
            "evaluate", f"{path} row {row} has no picture in {column}: {error}", "{bytes, path}", annotations.FIX
        ) from error


def mmvp(folder: Path) -> Iterator[Subset]:
    """Questions.csv: id, pattern, statement; rows 1-2, 3-4, ... are pairs whose pictures differ in that pattern.

    Its script asks for which of the two pictures "a photo of <statement>" scores higher. One subset per pattern.
    """
    for path in annotations.only(folder, "*.csv", "Questions.csv"):
        found = [tuple(item.values()) for _, item in annotations.table(path)]
        patterns: dict[str, list[Row]] = {}
        for index, (one, two) in enumerate(zip(found[::2], [*found[1::2], ()], strict=False)):
            row_id = str(2 * index + 1)
            if len(one) != 3 or len(two) != 3 or (one[0], two[0]) != (row_id, str(2 * index + 2)):
                annotations.wrong(path, row_id, "pair", [one, two], "two rows (id, pattern, statement), ids 1-2, 3-4")
            pattern = annotations.worded(path, row_id, "pattern", one[1])
            first, second = (
                annotations.below(path, row_id, "pattern", f"{pattern}/{which[0]}.jpg", folder / "MLLM_VLM Images")[1]
                for which in (one, two)
            )
            texts = tuple(
                f"a photo of {annotations.worded(path, row_id, 'statement', which[2])}" for which in (one, two)
            )
            patterns.setdefault(pattern, []).append(Row(row_id, f"mmvp:{row_id}", first, texts, other=second))
        for pattern, rows in patterns.items():
            name = pattern.lower().replace(" ", "_")
            yield Subset("mmvp", name, "square", "wrong", annotations.digest(path), tuple(rows))


def hard_positives(folder: Path) -> Iterator[Subset]:
    """Two files of the same rows, data/ with the caption and swapped_data/ with one that says the same.

    Texts: caption, hard positive, hard negative (of swapped_data, as its script compares). Pictures are Visual
    Genome's, below images/ under the row's path without its leading "data/".
    """
    for kind in ("attributes", "relations"):
        paths = [folder / part / f"vl_checklist_{kind}.json" for part in ("data", "swapped_data")]
        if not any(path.is_file() for path in paths):
            continue
        original, swapped = (list(annotations.items(path)) for path in paths)
        if len(original) != len(swapped):
            annotations.wrong(paths[1], "", "rows", len(swapped), f"{len(original)}, as {paths[0]}")
        rows = []
        for (row_id, item), (_, other) in zip(original, swapped, strict=True):
            name = annotations.text(paths[0], row_id, item, "image_path")
            if annotations.text(paths[1], row_id, other, "image_path") != name:
                annotations.wrong(paths[1], row_id, "image_path", other["image_path"], f"{name}, as {paths[0]}")
            _, picture = annotations.below(
                paths[0], row_id, "image_path", name.removeprefix("data/"), folder / "images"
            )
            texts = (
                annotations.text(paths[0], row_id, item, "true_caption"),
                *_texts(paths[1], row_id, other, "true_caption", "false_caption"),
            )
            rows.append(Row(row_id, name, picture, texts))
        digest = "+".join(annotations.digest(path) for path in paths)
        yield Subset("hard_positives", kind, "both", "wrong", digest, tuple(rows))


def vl_checklist(folder: Path) -> Iterator[Subset]:
    """Files [[picture, {POS: [text], NEG: [text]}], ...] below data/{Object,Attribute,Relation}; the first texts count.

    Pictures are below images/{vg,swig,hake}; VAW's are Visual Genome's. Subsets are named kind.source_..._part.
    """
    for path in sorted((folder / "data").rglob("*.json")):
        kind = path.relative_to(folder / "data").parts[0].lower()
        stem = path.stem if "_" in path.stem else f"{path.parent.name}_{path.stem}"
        source = {"vaw": "vg"}.get(stem.partition("_")[0], stem.partition("_")[0])
        if kind not in ("object", "attribute", "relation") or source not in ("vg", "swig", "hake"):
            raise UserError(
                "evaluate", f"{path} is no file of this benchmark", "data/{Object,Attribute,Relation}", "move it away"
            )
        rows = []
        for row_id, item in annotations.items(path):
            if not isinstance(item, list) or len(item) != 2:
                annotations.wrong(path, row_id, "row", item, "[picture, {POS, NEG}]")
            given = annotations.worded(path, row_id, "picture", item[0])
            name, picture = annotations.below(path, row_id, "picture", given, folder / "images" / source)
            texts = [annotations.field(path, row_id, item[1], side, list) for side in ("POS", "NEG")]
            if not all(texts):
                annotations.wrong(path, row_id, "POS, NEG", texts, "a text in each")
            pair = tuple(annotations.worded(path, row_id, "POS, NEG", side[0]) for side in texts)
            rows.append(Row(row_id, f"{source}/{name}", picture, pair))
        yield Subset("vl_checklist", f"{kind}.{stem}", "choice", "wrong", annotations.digest(path), tuple(rows))


def _texts(path: Path, row_id: str, item: Any, *names: str) -> tuple[str, ...]:
    return tuple(annotations.text(path, row_id, item, name) for name in names)
