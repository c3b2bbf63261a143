"""Files that are broken in ways any benchmark's may be."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from stages.benchmarks import loaders as benchmarks
from tests.stages.benchmarks.files import ARO, BOX, NAMED, save

PAIR = {"filename": "0.png", **NAMED}
WHOLE = {
    "sugarcrepe/x.json": {"1": PAIR},
    "sugarcrepe_pp/x.json": [PAIR | {"id": 0, "caption2": "c"}],
    "valse/x.json": {
        "1": {"image_file": "0.png", "caption": "a", "foil": "b", "linguistic_phenomena": "p", "mturk": {"caption": 2}}
    },
    "aro/visual_genome_relation.json": [ARO | BOX],
    "aro/visual_genome_attribution.json": [ARO | BOX | {"attributes": ["red", "blue"]}],
    "aro/coco_order.json": [{"image_path": "0.png", "caption_options": list("abcde")}],
    "winoground/examples.jsonl": {"id": 0, "image_0": "0", "image_1": "1", "caption_0": "a", "caption_1": "b"},
    "cola/COLA_multiobjects_matching_benchmark.json": [["x/0.png", "a", "x/1.png", "b"]],
    "vl_checklist/data/Relation/vg/action.json": [["0.png", {"POS": ["a"], "NEG": ["b"]}]],
    "hard_positives/data/vl_checklist_relations.json": [{**ARO, "image_path": "data/0.png"}],
    "coco_retrieval/dataset_coco.json": {
        "images": [{"split": "test", "filepath": "val2014", "filename": "0.png", "sentences": [{"raw": "a"}]}]
    },
    "colorswap/test.json": [{"caption_1": "a", "caption_2": "b", "image_1": "0.png", "image_2": "1.png"}],
    "spec/count/text2image.json": [{"query": "a", "keys": ["0.png", "1.png"], "label": 1}],
    "whatsup/vg_qa_one_obj.json": [[1, "a", "b"]],
    "dci_retrieval/annotations/1.json": {"image": "0.png", "extra_caption": "a"},
    "flickr30k_retrieval/flickr30k_test.json": [{"image": "0.png", "caption": ["a", "b"]}],
}
"""A good row in each format."""

leaves = st.one_of(
    *(st.none(), st.booleans(), st.integers(-3, 9), st.floats()),
    st.sampled_from(["a cup", "", " ", "é", "\ud800", "/x", "../x", "x" * 300, "\0"]),
)
anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("a"), inner))


@pytest.mark.parametrize("file", ["sugarcrepe/x.json", "winoground/examples.jsonl", "mmvp/Questions.csv"])
def test_other_encodings_are_refused(tmp_path: Path, file: str) -> None:
    path = save(tmp_path / file, "")
    path.write_bytes('{"1": "é"}'.encode("latin-1"))
    with pytest.raises(UserError, match="cannot be read"):
        benchmarks.read(file.partition("/")[0], tmp_path)


def changed(draw: st.DataObject, content: Any) -> Any:
    """The content with something else in one place, or without that place."""
    if not isinstance(content, dict | list) or not content or draw.draw(st.integers(0, 4)) == 0:
        return draw.draw(anything)
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    key = draw.draw(st.sampled_from(keys))
    rest = {k: content[k] for k in keys if k != key}
    if draw.draw(st.integers(0, 4)):
        rest[key] = changed(draw, content[key])
    return rest if isinstance(content, dict) else [rest[k] for k in sorted(rest)]


def read_content(root: Path, file: str, content: object) -> int:
    save(root / file, json.dumps(content))
    if file.startswith("hard_positives"):
        save(root / file.replace("data/", "swapped_data/", 1), json.dumps(content))
    return sum(len(subset.rows) for subset in benchmarks.read(file.partition("/")[0], root))


@pytest.mark.parametrize("file", WHOLE)
def test_the_rows_that_are_changed_below_are_good(tmp_path: Path, file: str) -> None:
    assert read_content(tmp_path, file, WHOLE[file])


@given(file=st.sampled_from(list(WHOLE)), draw=st.data())
@settings(max_examples=400, deadline=None)
def test_any_json_is_rows_or_a_user_error(
    file: str, draw: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("any")
    try:
        assert read_content(root, file, changed(draw, WHOLE[file])) or file.startswith("valse")  # votes may be too few
    except UserError as error:
        assert "\n" not in str(error)


@given(cut=st.integers(0, 400), flip=st.integers(0, 400), byte=st.integers(0, 255))
@settings(max_examples=100, deadline=None)
def test_damaged_bytes_are_rows_or_a_user_error(
    cut: int, flip: int, byte: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("any")
    save(root / "sugarcrepe/x.json", {"1": {"filename": "0.png", **NAMED}, "7": {"filename": "1.png", **NAMED}})
    path = root / "sugarcrepe/x.json"
    data = bytearray(path.read_bytes())
    data[flip % len(data)] = byte
    path.write_bytes(data[: len(data) - cut % len(data)])
    try:
        benchmarks.read("sugarcrepe", root)
    except UserError as error:
        assert "\n" not in str(error)
