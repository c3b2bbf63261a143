import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from stages import sources

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40).map(str.strip).filter(bool)


def read_csv(path: Path, **settings: str) -> list[sources.Record]:
    return list(sources.csv_pairs(path, sources.Format(**({"encoding": "utf-8"} | settings))))


@given(rows=st.lists(st.tuples(TEXT, TEXT), max_size=8), delimiter=st.sampled_from([",", "\t"]))
def test_csv_reads_back_whatever_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str
) -> None:
    import csv

    path = tmp_path_factory.mktemp("csv") / "captions.csv"
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle, delimiter=delimiter).writerows([("image", "caption"), *rows])
    assert [(record.image, record.caption) for record in read_csv(path)] == rows


def test_csv_names_the_missing_column_and_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("file,text\na.png,hello\n")
    with pytest.raises(UserError, match=r"no column 'image', found \['file', 'text'\]"):
        read_csv(tmp_path / "c.csv")
    assert read_csv(tmp_path / "c.csv", image_column="file", caption_column="text")[0].caption == "hello"


def test_bytes_that_are_not_utf8_are_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(b"image,caption\na.png,fine\nb.png,caf\xe9\n")
    with pytest.raises(UserError, match=r"c.csv:3 holds byte 0xe9, which is not utf-8"):
        read_csv(tmp_path / "c.csv")
    assert read_csv(tmp_path / "c.csv", encoding="latin-1")[1].caption == "café"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("COCO_train2014_000000000009.jpg", "coco:train2014:000000000009"),
        ("000000289393.jpg", "coco:2017:000000289393"),
        ("val2014/COCO_val2014_000000184613.jpg", "coco:val2014:000000184613"),
    ],
)
def test_coco_keys(name: str, key: str) -> None:
    assert sources.coco_key(name) == key


def test_coco_json_and_its_faults(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    image = {"id": 9, "file_name": "COCO_train2014_000000000009.jpg"}
    note = {"id": 1, "image_id": 9, "caption": "A plate. \n"}
    path.write_text(json.dumps({"images": [image], "annotations": [note]}))
    (record,) = sources.coco_json(path, sources.Format())
    assert record.image_key == "coco:train2014:000000000009"
    path.write_text(json.dumps({"images": [image], "annotations": [note | {"image_id": 10}]}))
    with pytest.raises(UserError, match="lacks 10"):
        list(sources.coco_json(path, sources.Format()))
    path.write_text('{"images": [')
    with pytest.raises(UserError, match="is not JSON"):
        list(sources.coco_json(path, sources.Format()))


def test_karpathy_splits_are_explicit_and_restval_never_comes_by_accident(tmp_path: Path) -> None:
    def image(number: int, split: str) -> dict:
        name = f"COCO_val2014_{number:012d}.jpg"
        return {"filepath": "val2014", "filename": name, "split": split, "sentences": [{"raw": "a"}, {"raw": "b"}]}

    path = tmp_path / "k.json"
    path.write_text(json.dumps({"images": [image(i, s) for i, s in enumerate(("train", "val", "test", "restval"))]}))
    records = list(sources.karpathy_json(path, sources.Format()))
    assert [(r.split, r.caption) for r in records] == [(s, c) for s in ("train", "val", "test") for c in "ab"]
    assert records[0].image == "val2014/COCO_val2014_000000000000.jpg"
    (rest, _) = sources.karpathy_json(path, sources.Format(karpathy_splits=("restval",)))
    assert rest.split == "train" and rest.image_key == "coco:val2014:000000000003"


def test_negclip_tsv_reads_list_literals_and_never_runs_them(tmp_path: Path) -> None:
    path = tmp_path / "n.tsv"
    head = "\ttitle\tfilepath\tneg_caption\tneg_image\n"
    path.write_text(
        head + "0\tA cat on a mat.\tcoco/val2014/COCO_val2014_000000184613.jpg\t['A mat on a cat .', \"it's\"]\t[1]\n"
    )
    (record,) = sources.negclip_tsv(path, sources.Format())
    assert record.negatives == ("A mat on a cat .", "it's")
    assert record.image_key == "coco:val2014:000000184613"
    path.write_text(head + "0\tA\tcoco/val2014/1.jpg\t[__import__('os').getcwd()]\t[1]\n")
    with pytest.raises(UserError, match="n.tsv:2 is not a Python list"):
        list(sources.negclip_tsv(path, sources.Format()))


def test_the_real_negclip_file_reads_whole() -> None:
    path = Path(__file__).parents[3] / "shared" / "formats" / "neg_clip_valid.tsv"
    if not path.exists():
        pytest.skip("the real NegCLIP file is not at hand")
    counts: dict[int, int] = {}
    for record in sources.negclip_tsv(path, sources.Format()):
        counts[len(record.negatives)] = counts.get(len(record.negatives), 0) + 1
    assert counts == {1: 2891, 2: 1418, 3: 480, 4: 47, 5: 3}


def test_degla_json_builds_the_file_name(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps([{"image_id": 9, "original": "A plate.", "enhanced": ["b", "c", "d", "e"]}]))
    (record,) = sources.degla_json(path, sources.Format())
    assert (record.image, record.negatives) == ("COCO_train2014_000000000009.jpg", ("b", "c", "d", "e"))
    path.write_text(json.dumps([{"image_id": 9, "original": "A plate."}]))
    with pytest.raises(UserError, match="lacks 'enhanced'"):
        list(sources.degla_json(path, sources.Format()))


def test_sidecar_folder(tmp_path: Path) -> None:
    (tmp_path / "images" / "sub").mkdir(parents=True)
    (tmp_path / "images" / "sub" / "a.png").write_bytes(b"")
    (tmp_path / "images" / "sub" / "a.txt").write_text("one\ntwo\n")
    records = list(sources.read("folder", tmp_path, sources.Format(), tmp_path / "unpacked"))
    assert [(r.image, r.caption) for r in records] == [("sub/a.png", "one"), ("sub/a.png", "two")]


def test_tar_shards_unpack_only_below_their_own_folder(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "00000.tar", "w") as shard:
        for name, content in {
            "a.jpg": b"picture",
            "a.txt": b"caption a",
            "a.json": b'{"status": "success"}',
            "b.json": b'{"status": "failed_to_download", "caption": "gone"}',
            "../../evil.jpg": b"picture",
            "../../evil.txt": b"caption evil",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    layout = sources.Format(captions="*.tar")
    records = list(sources.read("webdataset", tmp_path, layout, tmp_path / "deep" / "unpacked"))
    assert records[0].caption == "caption a"
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jpg")}
    assert all(name.startswith("deep/unpacked/00000/") for name in written) and "deep/unpacked/00000/a.jpg" in written


def test_parquet_with_bytes_and_lists_of_captions(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"image": [{"bytes": b"x", "path": "p.png"}], "caption": [["one", "two"]]})
    pq.write_table(table, tmp_path / "train-0.parquet")
    layout = sources.Format(captions="*.parquet")
    records = list(sources.read("parquet", tmp_path, layout, tmp_path / "unpacked"))
    assert [record.caption for record in records] == ["one", "two"]
    assert (tmp_path / "unpacked" / records[0].image).read_bytes() == b"x"
    (tmp_path / "train-0.parquet").write_bytes((tmp_path / "train-0.parquet").read_bytes()[:50])
    with pytest.raises(UserError, match="train-0.parquet is not a whole Parquet file"):
        list(sources.read("parquet", tmp_path, layout, tmp_path / "unpacked"))
