"""Embeddings that somebody else computed, in place of a model: rows of any encoder, also one open_clip cannot load.

`items` lists what a folder of benchmarks asks for, a table of `kind`, `name`, `path`. With a column `embedding` beside
them that table is what `Embeddings` reads.

Shapes: N rows · D embedding width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import tables
from pipeline.artifact import file_sha256
from pipeline.errors import UserError
from pipeline.stage import Progress, silent
from stages.benchmarks.rows import ImageRef, Subset
from stages.evaluate.rows import Floats

if TYPE_CHECKING:
    import pyarrow as pa

ENDING = ".parquet"


def items(subsets: Sequence[Subset], root: Path, pictures: Path | None, progress: Progress = silent) -> "pa.Table":
    """What has to be embedded to score these subsets, each once: kind ("image" or "text"), name, path (of an image).

    Args:
        subsets: of benchmarks below the root; images that are not there are left out.
        root: images are named as below it.
        pictures: folder for those images that are a box of a file, or inside one, as PNG; None = there are none.
        progress: callback.

    Raises UserError when there are such images and no folder.
    """
    import pyarrow as pa

    there = sorted({one for subset in subsets for one in subset.images if one.path.is_file()}, key=_order)
    texts = {text for subset in subsets for row in subset.rows for text in row.texts}
    texts |= {text for subset in subsets for prompt in subset.prompts for text in prompt}
    made: list[dict[str, str | None]] = []
    for done, image in enumerate(there):
        path = image.path
        if image.box or image.part:
            if pictures is None:
                what = f"{name_of(image, root)} is part of a file"
                raise UserError("data", what, "a folder to write such images to", "--pictures FOLDER")
            path = pictures / f"{done:07d}.png"
            with tables.replacing(path) as unfinished:
                image().save(unfinished, "PNG")
        made.append({"kind": "image", "name": name_of(image, root), "path": str(path.absolute())})
        progress("images", done + 1, len(there))
    made += [{"kind": "text", "name": text, "path": None} for text in sorted(texts)]
    return pa.Table.from_pylist(made, pa.schema([(name, pa.string()) for name in ("kind", "name", "path")]))


def name_of(image: ImageRef, root: Path) -> str:
    """Below the root: aro/images/1.jpg; its box aro/images/1.jpg#0,0,20,40; inside a file bivlc/x.parquet#image,7."""
    name = str(image.path.relative_to(root) if image.path.is_relative_to(root) else image.path)
    parts = [*([image.part.column, image.part.row] if image.part else []), *(image.box or ())]
    return f"{name}#{','.join(map(str, parts))}" if parts else name


def _order(image: ImageRef) -> tuple[str, str]:
    return str(image.path), f"{image.part} {image.box}"


class Embeddings:
    """A Parquet file of kind, name and embedding, as `items` names them.

    Args:
        path: the file. Embeddings are lists of D numbers, of any length but 0; they are normalised here.
        root: folder of benchmarks that images are named below.

    Raises UserError when a column is missing, a row stands twice, or an embedding has another width or no direction.
    """

    def __init__(self, path: Path, root: Path) -> None:
        self.path, self.root = path, root
        self._at, self._rows_ND = _read(path)

    @property
    def description(self) -> dict[str, Any]:
        """What the report says of the model."""
        told = {"embeddings": self.path.name, "sha256": file_sha256(self.path), "width": self._rows_ND.shape[1]}
        return {"activation": "-", "tokenizer": "-", "device": f"embeddings of {self.path.name}"} | told

    def images(self, images: Sequence[ImageRef]) -> tuple[dict[ImageRef, int], Floats]:
        """Row of each image; of those that the file lacks a row of NaN, so that they are counted and not scored."""
        none = len(self._rows_ND)
        found = {image: self._at.get(("image", name_of(image, self.root)), none) for image in images}
        if found and set(found.values()) == {none}:
            example = name_of(next(iter(found)), self.root)
            raise self._lacks(f"no embedding of any of {len(found):,} images", example)
        missing_1D = np.full((1, self._rows_ND.shape[1]), np.nan, dtype=np.float32)
        return found, np.concatenate([self._rows_ND, missing_1D])

    def texts(self, texts: Sequence[str]) -> tuple[dict[str, int], Floats]:
        """Row of each text. Raises UserError when the file lacks one: without it there is nothing to choose between."""
        distinct = list(dict.fromkeys(texts))
        lacking = [text for text in distinct if ("text", text) not in self._at]
        if lacking:
            raise self._lacks(f"no embedding of {len(lacking):,} of {len(distinct):,} texts", lacking[0])
        return {text: self._at["text", text] for text in distinct}, self._rows_ND

    def _lacks(self, what: str, example: str) -> UserError:
        told = f"{self.path} has {what}, e.g. {example!r}"
        return UserError("eval", told, "a row of each item", "embed what degla data items lists")


def _read(path: Path) -> tuple[dict[tuple[str, str], int], Floats]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    def refuse(what: str) -> UserError:
        return UserError("eval", f"{path} {what}", "columns kind, name, embedding", "see degla data items --help")

    try:
        table = pq.ParquetFile(path).read(columns=["kind", "name", "embedding"])
    except (OSError, ValueError, pa.ArrowException) as error:
        raise refuse(f"cannot be read: {error}") from error
    if set(table.column_names) != {"kind", "name", "embedding"} or not len(table):
        raise refuse(f"has {len(table)} rows of {', '.join(table.column_names) or 'nothing'}")
    keys = list(zip(table["kind"].to_pylist(), table["name"].to_pylist(), strict=True))
    column = table["embedding"].combine_chunks()
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_list(column.type) for is_list in lists) or not _is_number(column.type.value_type):
        raise refuse(f"has embeddings of type {column.type}, not lists of numbers")
    widths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(widths) != 1 or not widths[0]:
        raise refuse(f"has embeddings of widths {sorted(map(str, widths))[:5]}, not of one")
    at = {key: row for row, key in enumerate(keys)}
    if len(at) != len(keys):
        raise refuse(f"has {len(keys)} rows but {len(at)} names")
    rows_ND = np.asarray(column.flatten().to_numpy(zero_copy_only=False), dtype=np.float32).reshape(-1, widths[0])
    length_N = np.linalg.norm(rows_ND, axis=1)
    if not (ok_N := np.isfinite(length_N) & (length_N > 0)).all():
        raise refuse(f"has an embedding of {keys[int(np.argmin(ok_N))][1]!r} that is not finite, or 0")
    return at, rows_ND / length_N[:, None]


def _is_number(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
