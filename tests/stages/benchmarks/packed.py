"""Packed files as Hugging Face has them: images as cells {bytes, path}."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.stages.benchmarks.files import jpeg

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
COLOURS = ["red", "green", "blue", "yellow"]


def save_packed(path: Path, rows: list[dict[str, Any]], **images: list[str | None]) -> Path:
    """A Parquet file, or an Arrow stream by its ending, with columns of images of these names.

    In the first column the left half of the image of row i is COLOURS[i], in the second the right half.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    for order, (column, names) in enumerate(images.items()):
        cells = []
        for row, name in enumerate(names):
            pair = (COLOURS[row % 4], COLOURS[(row + 1) % 4])
            data = jpeg(path.parent.parent / "made" / f"{column}{row}.png", *(pair if order == 0 else pair[::-1]))
            cells.append({"bytes": data, "path": name})
        table = table.append_column(column, pa.array(cells, PICTURE))
    if path.suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table, max_chunksize=2)
    else:
        pq.write_table(table, path, row_group_size=2)
    return path
