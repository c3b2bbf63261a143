"""Karpathy's test splits in both forms of their files, asked in both directions."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline import clip
from pipeline.errors import UserError
from stages.benchmarks import loaders as benchmarks
from stages.benchmarks.retrieval import karpathy_test
from stages.evaluate import Config
from stages.evaluate.aggregates import definitions
from stages.evaluate.measure import measure
from tests.stages.small_road import SmallRoad, build, picture

COLOURS = [("red", "blue"), ("green", "white"), ("black", "yellow")]


def coco(pictures: int = 3, captions: int = 5) -> dict[str, Any]:
    """dataset_coco.json: the test pictures among others."""
    images: list[dict[str, Any]] = [
        {"filepath": "val2014", "filename": f"COCO_val2014_{index:012d}.jpg", "cocoid": index,
         "split": "test" if index < pictures else "restval",
         "sentences": [{"raw": f"picture {index}, caption {order} ", "tokens": []} for order in range(captions)]}
        for index in range(pictures + 2)
    ]  # fmt: skip
    images[0]["sentences"].append({"raw": "picture 1, caption 0"})  # of another picture too
    return {"dataset": "coco", "images": images}


def write_coco(root: Path) -> None:
    for index, (left, right) in enumerate(COLOURS):
        picture(root / f"coco_retrieval/images/val2014/COCO_val2014_{index:012d}.jpg", left, right)
    (root / "coco_retrieval/dataset_coco.json").write_text(json.dumps(coco()))


def test_every_caption_is_asked_and_equal_ones_are_right_for_each_picture(tmp_path: Path) -> None:
    write_coco(tmp_path)
    to_text, to_image = benchmarks.load("coco_retrieval", tmp_path, official=False)
    assert (len(to_text.rows), len(to_image.rows), len(to_text.prompts)) == (3, 16, 15)
    shared = [row for row in to_image.rows if row.texts == ("picture 1, caption 0",)]
    assert [row.right for row in shared] == [(0, 1), (0, 1)] and len({row.row_id for row in shared}) == 2
    assert [len(row.right) for row in to_text.rows] == [6, 5, 5]
    with pytest.raises(UserError, match="coco_retrieval/i2t has valid 3; expected 5000"):
        benchmarks.load("coco_retrieval", tmp_path, official=True)


def test_official_coco_has_25010_captions(tmp_path: Path) -> None:
    """4,990 pictures with five captions, ten with six, as the real file."""
    content = coco(0)
    content["images"] = [
        {"filepath": "val2014", "filename": f"{index}.jpg", "split": "test",
         "sentences": [{"raw": f"{index} {order}"} for order in range(6 if index < 10 else 5)]}
        for index in range(5000)
    ]  # fmt: skip
    (tmp_path / "coco_retrieval").mkdir()
    (tmp_path / "coco_retrieval/dataset_coco.json").write_text(json.dumps(content))
    picture(tmp_path / "coco_retrieval/images/val2014/7.jpg", "red", "blue")
    to_text, to_image = benchmarks.load("coco_retrieval", tmp_path, official=True)
    assert (len(to_text.rows), len(to_image.rows)) == (5000, 25010)


def test_both_forms_of_the_file_say_the_same(tmp_path: Path) -> None:
    karpathy, blip = tmp_path / "dataset_flickr30k.json", tmp_path / "flickr30k_test.json"
    karpathy.write_text(
        json.dumps({"images": [{"filename": "1.jpg", "split": "test", "sentences": [{"raw": "a"}, {"raw": "b"}]}]})
    )
    blip.write_text(json.dumps([{"image": "1.jpg", "caption": ["a", "b"]}]))
    assert list(karpathy_test(karpathy, tmp_path)) == list(karpathy_test(blip, tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [{"split": "train", "filename": "1.jpg", "sentences": []}]}, "rows of the test split = 0"),
        ({"images": [{"split": "test", "filename": "1.jpg", "sentences": []}]}, "row 0 has captions"),
        ({"pictures": []}, "has images = None"),
        ([{"image": "1.jpg", "caption": 3}], "row 0 has caption = 3"),
        ([], "rows of the test split = 0"),
        ("a", "rows of the test split = 0"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "dataset_coco.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        list(karpathy_test(path, tmp_path))


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> SmallRoad:
    return build(tmp_path_factory.mktemp("home"))


def test_a_model_is_asked_beside_the_datasets_own_test_split(road: SmallRoad, tmp_path: Path) -> None:
    write_coco(tmp_path)
    student = str(road.artifacts["model"].path / "student")
    config = Config(root=tmp_path, official=False)
    found = measure({"model": partial(clip.load, student)}, config).aggregates
    for name in ("i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10"):
        assert found[f"coco_retrieval.{name}"]["n"] == (3 if name.startswith("i2t") else 16)
    assert found["coco_retrieval.t2i_r10"]["model"]["value"] == 1  # of three pictures
    both = definitions({(name, side): [] for name in ("retrieval", "coco_retrieval") for side in ("i2t", "t2i")})
    assert {item.name for item in both if item.headline} == {"retrieval.mean_r1", "coco_retrieval.mean_r1"}
