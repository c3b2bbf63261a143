"""Each benchmark in its authors' own format, as the real files have it, and what is said of files that are broken."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import clip
from pipeline.errors import UserError
from pipeline.schema import SCORES
from stages.assemble.decontaminate import benchmark_rows
from stages.benchmarks import loaders as benchmarks
from stages.benchmarks.rows import Picture
from stages.evaluate.aggregates import aggregate
from stages.evaluate.scoring import margin
from stages.evaluate.stage import Config, measure
from tests.stages.small_road import caption, model_folder, picture, write_benchmarks


def save(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def jpeg(path: Path, left: str = "red", right: str = "blue") -> bytes:
    picture(path, left, right)
    return path.read_bytes()


# -- the newer sets ----------------------------------------------------------------------------------------------------


def write_bivlc_shard(path: Path, rows: int, group: int) -> None:
    """As Hugging Face has it: pictures as {bytes, path}, in small row groups."""
    colours = ["red", "green", "blue", "yellow"]
    picture_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells: dict[str, list[Any]] = {"image": [], "negative_image": []}
    for row in range(rows):
        left, right = colours[row % 4], colours[(row + 1) % 4]
        for column, pair in (("image", (left, right)), ("negative_image", (right, left))):
            data = jpeg(path.parent.parent / "made" / f"{column}{row}.png", *pair)
            cells[column].append({"bytes": data, "path": f"{row:012d}.jpg" if column == "image" else None})
    kinds = [("swap", "att"), ("add", "obj")]
    table = pa.table(
        {
            "image": pa.array(cells["image"], picture_type),
            "caption": [caption("red", "blue")] * rows,
            "negative_caption": [caption("blue", "red")] * rows,
            "negative_image": pa.array(cells["negative_image"], picture_type),
            "type": [kinds[row % 2][0] for row in range(rows)],
            "subtype": [kinds[row % 2][1] for row in range(rows)],
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)


def test_bivlc_shards_show_the_pictures_inside(tmp_path: Path) -> None:
    write_bivlc_shard(tmp_path / "bivlc" / "test-00000-of-00001.parquet", rows=5, group=2)
    add, swap = benchmarks.load("bivlc", tmp_path, official=False)
    assert (add.name, swap.name) == ("add_obj", "swap_att") and (len(add.rows), len(swap.rows)) == (2, 3)
    last = swap.rows[-1]
    assert last.image_key == "000000000004.jpg" and last.picture and last.other
    assert last.picture().getpixel((10, 20)) == (255, 0, 0)  # row 4 begins with red again, its negative with green
    assert last.other().getpixel((10, 20)) == (0, 128, 0)
    with pytest.raises(UserError, match="bivlc has valid 5; expected 2933"):
        benchmarks.load("bivlc", tmp_path, official=True)


def test_bivlc_csv_names_its_pictures(tmp_path: Path) -> None:
    jpeg(tmp_path / "bivlc/images/1.png")
    header = "image,caption,negative_caption,negative_image,type,subtype\n"
    save(tmp_path / "bivlc/test.csv", header + '1.png,"a cup, red",a dog,2.png,replace,obj\n')
    (subset,) = benchmarks.load("bivlc", tmp_path, official=False)
    (row,) = subset.rows
    assert (subset.name, subset.rule, row.texts) == ("replace_obj", "square", ("a cup, red", "a dog"))
    save(tmp_path / "bivlc/test.csv", header + "1.png,a cup,a dog,2.png,replace\n")
    with pytest.raises(UserError, match=r"bivlc/test\.csv row 0 .* expected 6 fields"):
        benchmarks.load("bivlc", tmp_path, official=False)


def test_mmvp_pairs_statements_with_their_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "mmvp"
    jpeg(folder / "MLLM_VLM Images/Quantity and Count/3.jpg")
    lines = ["Question ID,Type,Statement", "1,Texts,the word hot", "2,Texts,the word cold"]
    lines += ["3,Quantity and Count,two cups", "4,Quantity and Count,three cups"]
    save(folder / "Questions.csv", "\n".join(lines))
    texts, count = benchmarks.load("mmvp", tmp_path, official=False)
    assert (texts.name, count.name) == ("texts", "quantity_and_count")
    (row,) = count.rows
    assert row.texts == ("a photo of two cups", "a photo of three cups")
    assert row.picture == Picture(folder / "MLLM_VLM Images/Quantity and Count/3.jpg")
    assert row.other == Picture(folder / "MLLM_VLM Images/Quantity and Count/4.jpg")
    for broken in (lines[:-1], [*lines[:3], *reversed(lines[3:])]):
        save(folder / "Questions.csv", "\n".join(broken))
        with pytest.raises(UserError, match="row 3 has pair"):
            benchmarks.load("mmvp", tmp_path, official=False)


def write_hard_positives(folder: Path) -> None:
    jpeg(folder / "images/VG_100K_2/2401814.jpg")
    row = {"image_id": "2401814", "image_path": "data/VG_100K_2/2401814.jpg", "false_caption": "jumping elephant"}
    for part, true in (("data", "walking elephant"), ("swapped_data", "strolling elephant")):
        save(folder / part / "vl_checklist_attributes.json", [row | {"true_caption": true}])


def test_hard_positives_join_both_files_row_by_row(tmp_path: Path) -> None:
    folder = tmp_path / "hard_positives"
    write_hard_positives(folder)
    (subset,) = benchmarks.load("hard_positives", tmp_path, official=False)
    assert (subset.name, subset.rule) == ("attributes", "both")
    assert subset.rows[0].texts == ("walking elephant", "strolling elephant", "jumping elephant")
    assert subset.rows[0].picture == Picture(folder / "images/VG_100K_2/2401814.jpg")
    swapped = folder / "swapped_data/vl_checklist_attributes.json"
    rows = json.loads(swapped.read_text())
    save(swapped, [rows[0] | {"image_path": "data/VG_100K/1.jpg"}])
    with pytest.raises(UserError, match=r"row 0 has image_path = 'data/VG_100K/1.jpg'; expected data/VG_100K_2"):
        benchmarks.load("hard_positives", tmp_path, official=False)
    save(swapped, rows * 2)
    with pytest.raises(UserError, match="has rows = 2; expected 1"):
        benchmarks.load("hard_positives", tmp_path, official=False)


def test_vl_checklist_names_subsets_by_kind_source_and_part(tmp_path: Path) -> None:
    folder = tmp_path / "vl_checklist"
    row = ["x/1.jpg", {"POS": ["a man rides", "unused"], "NEG": ["a man eats"]}]
    files = {
        "Relation/swig_action.json": ("relation.swig_action", "swig"),
        "Relation/vg/spatial.json": ("relation.vg_spatial", "vg"),
        "Attribute/vaw/color.json": ("attribute.vaw_color", "vg"),
        "Object/Location/swig_location/swig_agent/swig_agent_mid.json": ("object.swig_agent_mid", "swig"),
        "Object/Size/hake_size/hake_obj_small.json": ("object.hake_obj_small", "hake"),
    }
    for path, (_, source) in files.items():
        save(folder / "data" / path, [row])
        jpeg(folder / "images" / source / "x/1.jpg")
    found = {subset.name: subset.rows[0] for subset in benchmarks.load("vl_checklist", tmp_path, official=True)}
    assert {name: one.picture and one.picture.path.is_file() for name, one in found.items()} == {
        name: True for name, _ in files.values()
    }
    assert found["object.hake_obj_small"].texts == ("a man rides", "a man eats")
    save(folder / "data/Extra/vg_action.json", [row])
    with pytest.raises(UserError, match="no file of this benchmark"):
        benchmarks.load("vl_checklist", tmp_path, official=False)


def scored(benchmark: str, subset: str, rule: Any, similarities: list[list[float]]) -> dict[str, Any]:
    rows = [
        {"model": "m", "benchmark": benchmark, "subset": subset, "row_id": str(i), "image_key": str(i), "group": None,
         "similarities": s, "correct": float(margin(rule, s) > 0), "tie": False, "leaked": False, "protocol": "p"}
        for i, s in enumerate(similarities)
    ]  # fmt: skip
    return {
        name: one["m"]["value"] for name, one in aggregate(pa.Table.from_pylist(rows, SCORES), resamples=100).items()
    }


def test_hard_positive_scores_by_hand() -> None:
    """Caption, hard positive, negative: both beat it; only the caption; only the hard positive; neither."""
    found = scored(
        "hard_positives", "relations", "both", [[3, 2, 1], [3, 1, 2], [1, 3, 2], [1, 2, 3], [2, 3, 1], [1, 1, 1]]
    )
    assert found["hard_positives.relations"] == pytest.approx(2 / 6)
    assert found["hard_positives.relations.original"] == pytest.approx(3 / 6)
    assert found["hard_positives.relations.brittleness"] == pytest.approx(2 / 6)


def test_square_sets_report_their_own_main_score() -> None:
    squares = [[0.9, 0.1, 0.2, 0.8], [0.5, 0.4, 0.7, 0.8], [0.5, 0.7, 0.4, 0.8]]
    bivlc = scored("bivlc", "add_obj", "square", squares)
    assert bivlc == pytest.approx({"bivlc.text": 2 / 3, "bivlc.image": 2 / 3, "bivlc.group": 1 / 3})
    mmvp = scored("mmvp", "texts", "square", squares)
    assert mmvp["mmvp.image"] == pytest.approx(2 / 3)


def test_vl_checklist_weighs_sources_and_parts_alike() -> None:
    """Action of two sources, spatial of one: (mean(1, 0) + 1) / 2 whatever the row counts."""
    rows = [
        {"model": "m", "benchmark": "vl_checklist", "subset": subset, "row_id": str(i), "image_key": str(i),
         "group": None, "similarities": [1.0, 0.0], "correct": right, "tie": False, "leaked": False, "protocol": "p"}
        for subset, right, n in (("relation.vg_action", 1.0, 1), ("relation.swig_action", 0.0, 5),
                                 ("relation.vg_spatial", 1.0, 3)) for i in range(n)
    ]  # fmt: skip
    found = aggregate(pa.Table.from_pylist(rows, SCORES), resamples=100)
    assert found["vl_checklist.relation"]["m"]["value"] == pytest.approx(0.75)


def test_overlaps_are_sought_by_numbers_that_are_public(tmp_path: Path) -> None:
    """A set that numbers its own pictures must not be taken for Visual Genome, which has a picture 1 too."""
    write_bivlc_shard(tmp_path / "bivlc/test.parquet", rows=1, group=1)
    jpeg(tmp_path / "mmvp/MLLM_VLM Images/Color/1.jpg")
    save(tmp_path / "mmvp/Questions.csv", "id,type,statement\n1,Color,a red cup\n2,Color,a blue cup")
    jpeg(tmp_path / "zeroshot/cars/images/Audi/00001.jpg")
    save(tmp_path / "zeroshot/cars/classes.json", {"classnames": ["Audi"], "templates": ["a {}"]})
    rows = benchmark_rows(tmp_path, ["bivlc", "mmvp", "zeroshot"])
    assert rows["file"].to_pylist() == ["000000000000.jpg", "mmvp:1", None]


# -- bad input ---------------------------------------------------------------------------------------------------------

ARO = {"image_path": "0.png", "true_caption": "a", "false_caption": "b", "relation_name": "above"}
BOX = {"bbox_x": 0, "bbox_y": 0, "bbox_w": 20, "bbox_h": 40}
NAMED = {"caption": "a", "negative_caption": "b"}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("sugarcrepe/notes.json", {"about": "these files"}, "row about has filename = None"),
        ("sugarcrepe/x.json", '{"1": {}, "1": {}}', "the key '1' is there twice"),
        ("sugarcrepe/x.json", {"1": {"filename": "/etc/passwd", **NAMED}}, "expected a file name below images"),
        ("sugarcrepe/x.json", {"1": {"filename": "../0.png", **NAMED}}, "expected a file name below images"),
        ("sugarcrepe/x.json", {"1": {"filename": "0.png", **NAMED, "caption": " "}}, "row 1 has caption = ' '"),
        ("sugarcrepe/x.json", '{"1": {"filename": "\\ud800", "caption": "a"}}', "has filename = '.ud800'"),
        ("sugarcrepe/x.json", "[" * 100_000, "cannot be read"),
        ("sugarcrepe_pp/x.json", [{"id": 1, "filename": "0.png", "caption2": "c", **NAMED}] * 2, "row 1 has id = 1"),
        ("valse/x.json", {"1": {"mturk": {"caption": "3"}}}, "row 1 has caption = '3'"),
        ("aro/other.json", [], "no file of this benchmark"),
        ("aro/coco_order.json", [{"image_path": "0.png", "caption_options": ["a", "b"]}], "expected 5 texts"),
        ("aro/coco_order.json", [{"image_path": "0.png", "caption_options": ["a", "b", 3, "", None]}], "a text"),
        ("aro/visual_genome_relation.json", [ARO | BOX | {"bbox_w": 0}], "row 0 has box"),
        ("aro/visual_genome_relation.json", [ARO | BOX | {"bbox_x": -1}], "row 0 has box"),
        ("aro/visual_genome_relation.json", [ARO | BOX | {"bbox_h": float("nan")}], "row 0 has box"),
        ("aro/visual_genome_attribution.json", [ARO | BOX | {"attributes": "red"}], "has attributes = 'red'"),
        ("winoground/examples.jsonl", "\n\n", "holds no rows"),
        ("winoground/examples.jsonl", '{"id": 1\n', "line 1 is no JSON"),
        ("cola/COLA_multiobjects_matching_benchmark.json", [["a", "b", "c"]], "row 0 has row"),
        ("hard_positives/data/vl_checklist_relations.json", [], "holds no rows"),
        ("vl_checklist/data/Relation/vg/action.json", [["1.jpg", {"POS": [], "NEG": ["x"]}]], "POS, NEG"),
        ("mmvp/Questions.csv", "id,type,statement\n", "holds no rows"),
        ("zeroshot/x/notes.txt", "?", "has no classes.json"),
    ],
)  # fmt: skip
def test_broken_files_are_one_line_that_says_where(tmp_path: Path, file: str, content: object, message: str) -> None:
    save(tmp_path / file, content)
    with pytest.raises(UserError, match=message) as caught:
        benchmarks.read(file.partition("/")[0], tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["sugarcrepe/x.json", "winoground/examples.jsonl", "mmvp/Questions.csv"])
def test_other_encodings_are_refused(tmp_path: Path, file: str) -> None:
    path = save(tmp_path / file, "")
    path.write_bytes('{"1": "é"}'.encode("latin-1"))
    with pytest.raises(UserError, match="cannot be read"):
        benchmarks.read(file.partition("/")[0], tmp_path)


def test_a_box_outside_its_picture_is_an_error_and_one_over_the_edge_is_not(tmp_path: Path) -> None:
    path = tmp_path / "0.png"
    jpeg(path)  # 40 x 40
    with pytest.raises(UserError, match=r"the box \(40, 0, 60, 20\) lies outside .* 40 x 40 pixels"):
        Picture(path, (40, 0, 60, 20))()
    assert Picture(path, (30, 0, 50, 20))().getpixel((15, 5)) == (0, 0, 0)


def test_a_shard_that_is_cut_short_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bivlc" / "test.parquet"
    write_bivlc_shard(path, rows=2, group=1)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read"):
        benchmarks.read("bivlc", tmp_path)
    pq.write_table(pa.table({"caption": ["a"]}), path)
    with pytest.raises(UserError, match="has column = "):
        benchmarks.read("bivlc", tmp_path)


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
    "flickr30k_retrieval/flickr30k_test.json": [{"image": "0.png", "caption": ["a", "b"]}],
}
"""A good row in each format."""

leaves = st.one_of(
    *(st.none(), st.booleans(), st.integers(-3, 9), st.floats()),
    st.sampled_from(["a cup", "", " ", "é", "\ud800", "/x", "../x", "x" * 300, "\0"]),
)
anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("a"), inner))


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


def test_a_root_of_everything_is_read(tmp_path: Path) -> None:
    write_benchmarks(tmp_path)
    write_hard_positives(tmp_path / "hard_positives")
    write_bivlc_shard(tmp_path / "bivlc/test.parquet", rows=2, group=1)
    names = benchmarks.available(tmp_path)
    assert set(names) == {"sugarcrepe", "valse", "aro", "bivlc", "hard_positives", "zeroshot"}
    for name in names:
        assert benchmarks.load(name, tmp_path, official=False)


def test_a_real_model_is_asked_every_newer_question(tmp_path: Path) -> None:
    """Files as their authors publish them, to scores: nothing is left unasked."""
    root = tmp_path / "root"
    write_bivlc_shard(root / "bivlc/test.parquet", rows=4, group=3)
    write_hard_positives(root / "hard_positives")
    for number in (1, 2):
        jpeg(root / f"mmvp/MLLM_VLM Images/Color/{number}.jpg")
    save(root / "mmvp/Questions.csv", "id,type,statement\n1,Color,a red cup\n2,Color,a blue cup")
    save(root / "vl_checklist/data/Relation/swig_action.json", [["1.jpg", {"POS": ["a man"], "NEG": ["a dog"]}]])
    jpeg(root / "vl_checklist/images/swig/1.jpg")
    load = partial(clip.load, str(model_folder(tmp_path / "tower")))
    found = measure({"model": load}, Config(root=root, official=False, resamples=100, blind=False)).aggregates
    assert {name: (one["n"], one["of"]) for name, one in found.items() if name.count(".") == 1} == {
        **dict.fromkeys(("bivlc.text", "bivlc.image", "bivlc.group"), (4, 4)),
        **dict.fromkeys(("mmvp.text", "mmvp.image", "mmvp.group"), (1, 1)),
        "hard_positives.attributes": (1, 1),
        "vl_checklist.relation": (1, 1),
    }
    assert found["bivlc.add_obj.group"]["n"] == 2 and found["vl_checklist.relation.swig_action"]["n"] == 1
