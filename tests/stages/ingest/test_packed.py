import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import tables
from pipeline.errors import UserError
from stages.ingest import sources
from stages.ingest.records import Format, Record
from tests.stages.ingest.test_stage import run

JPEG, PNG = b"\xff\xd8\xff jpeg", b"\x89PNG png"


def tar(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as shard:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))


def parquet(path: Path, image: Any, caption: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": image, "caption": caption}), path)


def read(kind: str, root: Path, pattern: str) -> list[Record]:
    source = sources.find(kind, root, Format(captions=pattern))
    return list(sources.read(source, root / "deep" / "unpacked"))


# -- tar shards --------------------------------------------------------------------------------------------------------


def test_a_shard_unpacks_only_below_its_own_folder(tmp_path: Path) -> None:
    evil = {"../../evil.jpg": JPEG, "../../evil.txt": b"caption evil"}
    tar(tmp_path / "00000.tar", {"a.jpg": JPEG, "a.txt": b"caption a", **evil})
    records = read("webdataset", tmp_path, "*.tar")
    assert [record.caption for record in records] == ["caption a", "caption evil"]
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jpg")}
    assert all(name.startswith("deep/unpacked/00000/") for name in written) and "deep/unpacked/00000/a.jpg" in written


def test_no_two_samples_share_a_file(tmp_path: Path) -> None:
    tar(tmp_path / "a" / "0.tar", {"x y.jpg": JPEG + b"1", "x y.txt": b"1", "x_y.jpg": JPEG + b"2", "x_y.txt": b"2"})
    tar(tmp_path / "b" / "0.tar", {"x_y.jpg": JPEG + b"3", "x_y.txt": b"3"})
    records = read("webdataset", tmp_path, "*/0.tar")
    assert len(records) == 3
    for record in records:
        assert (tmp_path / "deep" / "unpacked" / record.image).read_bytes() == JPEG + record.caption.encode()
    assert len({record.image_key for record in records}) == 3


def test_what_img2dataset_could_not_fetch_is_a_fault(tmp_path: Path) -> None:
    failed = json.dumps({"status": "failed_to_resize", "error_message": "bad", "caption": "two"}).encode()
    good = json.dumps({"status": "success", "caption": "from json"}).encode()
    tar(tmp_path / "00000.tar", {"0.jpg": JPEG, "0.json": good, "1.json": failed, "2.jpg": JPEG, "2.json": b"{"})
    rows = [
        {"key": "0", "status": "success", "error_message": None, "url": "u/0", "caption": "from json"},
        {"key": "1", "status": "failed_to_resize", "error_message": "bad", "url": "u/1", "caption": "two"},
        {"key": "9", "status": "failed_to_download", "error_message": "HTTP 404", "url": "u/9", "caption": "nine"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "00000.parquet")
    found = {record.origin: record for record in read("webdataset", tmp_path, "*.tar")}
    assert found["00000.tar:0"].caption == "from json" and found["00000.tar:0"].fault is None
    assert found["00000.tar:1"].fault == ("not_fetched", "bad")
    assert found["00000.tar:2"].fault is not None and found["00000.tar:2"].fault[0] == "row_shape"
    assert found["00000.parquet:9"].fault == ("not_fetched", "HTTP 404")
    assert len(found) == 4


def test_a_sample_without_an_image_and_a_broken_archive(tmp_path: Path) -> None:
    tar(tmp_path / "0.tar", {"a.txt": b"alone", "b.jpg": JPEG, "b.txt": b"fine"})
    alone, fine = read("webdataset", tmp_path, "*.tar")
    assert alone.fault == ("image_missing", "no picture among ['txt']") and fine.fault is None
    tar(tmp_path / "1.tar", {"a.jpg": JPEG, "b.jpg": JPEG, "a.txt": b"again"})
    with pytest.raises(UserError, match=r"1.tar holds 'a' twice"):
        read("webdataset", tmp_path, "1.tar")
    (tmp_path / "2.tar").write_bytes((tmp_path / "0.tar").read_bytes()[:700])
    with pytest.raises(UserError, match=r"2.tar is not a whole tar archive"):
        read("webdataset", tmp_path, "2.tar")


# -- Parquet -----------------------------------------------------------------------------------------------------------


def test_structs_bytes_and_lists_of_captions(tmp_path: Path) -> None:
    images = [{"bytes": JPEG, "path": "p.PNG"}, {"bytes": PNG, "path": None}, {"bytes": None, "path": "gone.jpg"}]
    parquet(tmp_path / "t-0.parquet", images, [["one", "two"], ["three"], ["four"]])
    one, two, three, four = read("parquet", tmp_path, "*.parquet")
    assert [one.caption, two.caption, three.caption] == ["one", "two", "three"]
    assert one.image == two.image == "t-0/00000000.png" and three.image == "t-0/00000001.png"
    assert (tmp_path / "deep" / "unpacked" / one.image).read_bytes() == JPEG
    assert four.fault == ("image_missing", "no bytes of gone.jpg")
    parquet(tmp_path / "b.parquet", [JPEG, PNG], ["one", "two"])
    assert [record.image for record in read("parquet", tmp_path, "b.parquet")] == ["b/00000000.jpg", "b/00000001.png"]


def test_names_of_images_are_looked_up_in_the_image_folder(tmp_path: Path) -> None:
    parquet(tmp_path / "t.parquet", pa.array(["a.png"]).dictionary_encode(), ["one"])
    with pytest.raises(UserError, match="images is not there"):
        read("parquet", tmp_path, "*.parquet")
    (tmp_path / "images").mkdir()
    (record,) = read("parquet", tmp_path, "*.parquet")
    assert (record.image, record.image_key) == ("a.png", "parquet:a.png")


def test_files_of_the_same_name_in_two_folders_keep_their_images_apart(tmp_path: Path) -> None:
    for folder, content in (("train", b"1"), ("val", b"2")):
        parquet(tmp_path / folder / "0.parquet", [JPEG + content], [folder])
    one, two = read("parquet", tmp_path, "*/0.parquet")
    assert one.image != two.image and one.image_key != two.image_key


@pytest.mark.parametrize(
    ("image", "caption", "said"),
    [
        (["a.png"], ["x"], r"b.parquet has 'image' as path, a.parquet as bytes; expected files of one schema"),
        ([7], ["x"], r"b.parquet has 'image' as int64; expected a path, bytes, or a struct"),
        ([JPEG], [1.5], r"b.parquet has 'caption' as double; expected a text or a list of texts"),
    ],
)
def test_columns_of_another_kind_are_named_before_anything_is_written(
    tmp_path: Path, image: Any, caption: Any, said: str
) -> None:
    parquet(tmp_path / "a.parquet", [JPEG], ["fine"])
    parquet(tmp_path / "b.parquet", image, caption)
    with pytest.raises(UserError, match=said):
        run(tmp_path / "out", source="parquet", root=tmp_path, format={"captions": "*.parquet"})
    assert not list((tmp_path / "out").iterdir())


def test_a_missing_column_says_what_was_found(tmp_path: Path) -> None:
    pq.write_table(pa.table({"img": [JPEG], "text": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a.parquet has no column 'image', found \['img', 'text'\]"):
        read("parquet", tmp_path, "*.parquet")


def test_a_file_cut_in_half_or_damaged_inside(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"image": [JPEG * 50] * 600, "caption": ["x"] * 600}), tmp_path / "a.parquet", row_group_size=100
    )
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="a.parquet is not a whole Parquet file"):
        read("parquet", tmp_path, "*.parquet")
    damaged = bytearray(whole)
    damaged[20 : len(whole) // 3] = b"\xff" * (len(whole) // 3 - 20)
    (tmp_path / "a.parquet").write_bytes(damaged)
    with pytest.raises(UserError, match="a.parquet is not a whole Parquet file, after row"):
        read("parquet", tmp_path, "*.parquet")


def test_packed_images_become_pairs_also_where_an_image_folder_lies_beside(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "in" / "images").mkdir(parents=True)
    contents = []
    for number in range(3):
        drawn = io.BytesIO()
        Image.new("RGB", (8, 8), (number * 80, 0, 0)).save(drawn, "PNG")
        contents.append({"bytes": drawn.getvalue(), "path": f"{number}.png"})
    parquet(tmp_path / "in" / "t.parquet", contents, ["one", "two", "three"])
    meta = run(tmp_path / "out", source="parquet", root=tmp_path / "in", format={"captions": "*.parquet"})
    assert (meta["accepted"], meta["image_root"]) == (3, "images")
    rows = tables.read(tmp_path / "out").to_pylist()
    assert len(rows) == 3
    for row in rows:
        assert (tmp_path / "out" / "images" / row["image_uri"]).is_file()


def test_text_that_is_not_utf8_is_one_line(tmp_path: Path) -> None:
    buffers = [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
    parquet(tmp_path / "a.parquet", [JPEG], pa.Array.from_buffers(pa.string(), 1, buffers))
    with pytest.raises(UserError, match="a whole Parquet file"):
        read("parquet", tmp_path, "*.parquet")


def test_a_file_that_claims_to_be_huge_is_not_read(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a.jpg")
    member.size = 1 << 40
    (tmp_path / "0.tar").write_bytes(member.tobuf() + b"\0" * 10240)
    with pytest.raises(UserError, match="claims 1099511627776 bytes"):
        read("webdataset", tmp_path, "*.tar")


def test_names_and_facts_of_a_shard_that_cannot_be_written_are_faults(tmp_path: Path) -> None:
    facts = json.dumps({"image_key": "\ud800"}).encode()
    tar(
        tmp_path / "0.tar",
        {"\udcff.jpg": JPEG, "b.jpg": JPEG, "b.json": facts, "c.jpg": JPEG, "c.json": b'{"negatives": 5}'},
    )
    records = read("webdataset", tmp_path, "*.tar")
    assert len(records) == 3
    for record in records:
        assert record.fault is not None and record.fault[0] == "row_shape"
        record.origin.encode()


def test_a_column_name_that_is_not_utf8_is_one_line(tmp_path: Path) -> None:
    parquet(tmp_path / "whole.parquet", [JPEG], ["x"])
    content = (tmp_path / "whole.parquet").read_bytes().replace(b"caption", b"\xff\xfeption")
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(UserError, match="a whole Parquet file"):
        read("parquet", tmp_path, "a.parquet")
