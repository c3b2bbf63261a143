"""Embeddings from elsewhere in place of a model."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import clip
from pipeline.errors import UserError
from stages.benchmarks import loaders
from stages.benchmarks.rows import ImageRef
from stages.evaluate import Config
from stages.evaluate.embeddings import Embeddings, items, name_of
from stages.evaluate.measure import measure
from tests.stages.benchmarks.test_bivlc import write_bivlc_shard
from tests.stages.small_road import model_folder, write_benchmarks


def embedded(table: pa.Table, tower: str, path: Path) -> Path:
    """The file of embeddings that a small CLIP gives of the items."""
    model = clip.load(tower)
    rows = table.to_pylist()
    images = [Path(row["path"]) for row in rows if row["kind"] == "image"]
    image_ND = clip.embed_images(model, images, batch=8, workers=0, device="cpu").numpy()
    texts = [row["name"] for row in rows if row["kind"] == "text"]
    text_ND = clip.embed_texts(model, texts, batch=8, device="cpu").numpy()
    both_ND = [3 * row for row in (*image_ND, *text_ND)]  # of any length
    pq.write_table(table.append_column("embedding", pa.array([row.tolist() for row in both_ND])), path)
    return path


def test_a_models_own_embeddings_score_as_the_model_does(tmp_path: Path) -> None:
    """Every rule, whole images, boxes of them and images inside a file."""
    root = tmp_path / "root"
    write_benchmarks(root)
    write_bivlc_shard(root / "bivlc/test.parquet", rows=3, group=2)
    tower = str(model_folder(tmp_path / "tower"))
    names = loaders.available(root)
    subsets = [subset for name in names for subset in loaders.read(name, root)]
    table = items(subsets, root, tmp_path / "pictures")
    given = Embeddings(embedded(table, tower, tmp_path / "e.parquet"), root)
    config = Config(root=root, official=False, blind=False)
    ours = measure({"model": lambda: clip.load(tower)}, config)
    theirs = measure({"model": given}, config)
    assert len(ours.scores) == len(theirs.scores) > 20
    for mine, other in zip(ours.scores.to_pylist(), theirs.scores.to_pylist(), strict=True):
        assert mine["row_id"] == other["row_id"]
        assert mine["similarities"] == pytest.approx(other["similarities"], abs=2e-3), mine
    assert theirs.descriptions["model"]["width"] == 16 or theirs.descriptions["model"]["width"] > 0


def test_an_image_is_named_with_its_box_or_its_place_in_a_file(tmp_path: Path) -> None:
    write_bivlc_shard(tmp_path / "bivlc/x.parquet", rows=1, group=1)
    (subset,) = loaders.read("bivlc", tmp_path)
    assert subset.rows[0].image and name_of(subset.rows[0].image, tmp_path) == "bivlc/x.parquet#image,0"
    assert name_of(ImageRef(tmp_path / "aro/1.jpg", (1, 2, 3, 4)), tmp_path) == "aro/1.jpg#1,2,3,4"
    with pytest.raises(UserError, match=r"is part of a file; .* fix: --pictures FOLDER"):
        items([subset], tmp_path, None)


def rows(*more: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"kind": "text", "name": "a", "embedding": [3.0, 4.0]}, *more]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (rows({"kind": "text", "name": "b", "embedding": [1.0]}), "embeddings of widths"),
        (rows({"kind": "text", "name": "b", "embedding": None}), "embeddings of widths"),
        (rows({"kind": "text", "name": "b", "embedding": [0.0, 0.0]}), "an embedding of 'b' that is not finite, or 0"),
        (rows({"kind": "text", "name": "b", "embedding": [float("inf"), 0.0]}), "an embedding of 'b'"),
        (rows(*rows()), "has 2 rows but 1 names"),
        ([{"kind": "text", "name": "a"}], "has 1 rows of kind, name"),
        ([{"kind": "text", "name": "a", "embedding": "x"}], "embeddings of type string"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, content: list[dict[str, Any]], message: str) -> None:
    pq.write_table(pa.Table.from_pylist(content), tmp_path / "e.parquet")
    with pytest.raises(UserError, match=message):
        Embeddings(tmp_path / "e.parquet", tmp_path)


def test_a_text_that_lacks_is_refused_and_an_image_is_counted(tmp_path: Path) -> None:
    kinds = [{"kind": "image", "name": "x/1.jpg", "embedding": [1.0, 0.0]}]
    pq.write_table(pa.Table.from_pylist(rows(*kinds)), tmp_path / "e.parquet")
    given = Embeddings(tmp_path / "e.parquet", tmp_path)
    at, found_ND = given.texts(["a"])
    assert found_ND[at["a"]].tolist() == pytest.approx([0.6, 0.8])
    with pytest.raises(UserError, match=r"no embedding of 2 of 3 texts, e.g. 'b'.*degla data items"):
        given.texts(["a", "b", "c"])
    there, lacking = ImageRef(tmp_path / "x/1.jpg"), ImageRef(tmp_path / "x/2.jpg")
    places, image_ND = given.images([there, lacking])
    assert image_ND[places[there]].tolist() == [1, 0] and np.isnan(image_ND[places[lacking]]).all()
    with pytest.raises(UserError, match="no embedding of any of 1 images, e.g. 'x/2.jpg'"):
        given.images([lacking])
