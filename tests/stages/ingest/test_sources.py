import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import UserError
from pipeline.stage import silent
from stages.ingest import STAGE, Config, sources
from stages.ingest.records import Format, Record
from tests.paths import real

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40).map(str.strip).filter(bool)


def read(name: str, root: Path, **layout: str) -> list[Record]:
    return list(sources.read(sources.find(name, root, Format(**layout)), root / "unpacked"))


def read_csv(path: Path, **settings: str) -> list[Record]:
    return list(sources.csv_pairs(path, Format(**({"encoding": "utf-8"} | settings))))


@given(rows=st.lists(st.tuples(TEXT, TEXT), max_size=8), delimiter=st.sampled_from([",", "\t"]))
def test_csv_reads_back_whatever_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str
) -> None:
    import csv

    path = tmp_path_factory.mktemp("csv") / "captions.csv"
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle, delimiter=delimiter).writerows([("image", "caption"), *rows])
    assert [(record.image, record.caption) for record in read_csv(path)] == rows


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_csv_as_excel_writes_it_is_taken(tmp_path: Path, encoding: str) -> None:
    """Semicolons where the comma is the decimal sign, a byte order mark, umlauts, commas without quotes."""
    rows = (
        "Nr;Bild Datei;Beschreibung, kurz",
        "1;Möwe.png;A gull; and the sea",
        '2;b.png;"A ""red"" cup; a plate, blue"',
    )
    (tmp_path / "c.csv").write_bytes("\r\n".join(rows).encode(encoding))
    columns = {"image_column": "Bild Datei", "caption_column": "Beschreibung, kurz"}
    if encoding == "cp1252":
        with pytest.raises(UserError, match=r"c\.csv:2 holds byte 0xf6, .* fix: set ingest\.format\.encoding .*cp1252"):
            read_csv(tmp_path / "c.csv", **columns)
    told = {"encoding": encoding} if encoding in ("cp1252", "utf-16") else {}
    cut, whole = read_csv(tmp_path / "c.csv", **columns, **told)
    assert cut.fault is not None and "4 fields where the header has 3" in cut.fault[1]
    assert (whole.image, whole.caption) == ("b.png", 'A "red" cup; a plate, blue')


def test_the_delimiter_is_the_one_that_parts_the_columns(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("image;caption;a, b, c, d\na.png;A dog;x\n")
    assert read_csv(tmp_path / "c.csv")[0].caption == "A dog"
    (tmp_path / "c.csv").write_text("Bild;Text\na.png;A dog\n")
    with pytest.raises(UserError, match=r"has no column 'image', found \['Bild', 'Text'\]; expected .*semicolons"):
        read_csv(tmp_path / "c.csv")


def test_csv_names_the_missing_column_and_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("file,text\na.png,hello\n")
    with pytest.raises(UserError, match=r"no column 'image', found \['file', 'text'\]"):
        read_csv(tmp_path / "c.csv")
    assert read_csv(tmp_path / "c.csv", image_column="file", caption_column="text")[0].caption == "hello"


def test_a_caption_with_an_unquoted_comma_is_a_fault_and_never_cut(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text('image,caption\na.png,A man, a dog\nb.png,"A man, a dog"\n\nc.png\n')
    cut, whole, short = read_csv(tmp_path / "c.csv")
    assert cut.fault == ("row_shape", "3 fields where the header has 2: ['a.png', 'A man', ' a dog']")
    assert (whole.caption, whole.fault) == ("A man, a dog", None)
    assert short.fault is not None and short.origin == "c.csv:5"


def test_bytes_that_are_not_utf8_are_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(b"image,caption\na.png,fine\nb.png,caf\xe9\n")
    with pytest.raises(UserError, match=r"c.csv:3 holds byte 0xe9, which is not utf-8"):
        read_csv(tmp_path / "c.csv")
    assert read_csv(tmp_path / "c.csv", encoding="latin-1")[1].caption == "café"


def test_coco_json_and_its_faults(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    image = {"id": 9, "file_name": "COCO_train2014_000000000009.jpg"}
    note = {"id": 1, "image_id": 9, "caption": "A plate. \n"}
    path.write_text(json.dumps({"images": [image], "annotations": [note]}))
    (record,) = sources.coco_json(path, Format())
    assert record.image_key == "coco:train2014:000000000009"
    path.write_text(json.dumps({"images": [image], "annotations": [note | {"image_id": 10}]}))
    (lost,) = sources.coco_json(path, Format())
    assert lost.fault == ("image_unlisted", "image_id 10")
    path.write_text(json.dumps({"images": [image], "annotations": [{"id": 1, "image_id": 9}]}))
    with pytest.raises(UserError, match="lacks 'caption'"):
        list(sources.coco_json(path, Format()))
    path.write_text('{"images": [')
    with pytest.raises(UserError, match="is not JSON"):
        list(sources.coco_json(path, Format()))


def test_karpathy_splits_are_explicit_and_restval_never_comes_by_accident(tmp_path: Path) -> None:
    def image(number: int, split: str) -> dict:
        name = f"COCO_val2014_{number:012d}.jpg"
        return {"filepath": "val2014", "filename": name, "split": split, "sentences": [{"raw": "a"}, {"raw": "b"}]}

    path = tmp_path / "k.json"
    path.write_text(json.dumps({"images": [image(i, s) for i, s in enumerate(("train", "val", "test", "restval"))]}))
    records = list(sources.karpathy_json(path, Format()))
    assert [(r.split, r.caption) for r in records] == [(s, c) for s in ("train", "val", "test") for c in "ab"]
    assert records[0].image == "val2014/COCO_val2014_000000000000.jpg"
    (rest, _) = sources.karpathy_json(path, Format(karpathy_splits=("restval",)))
    assert rest.split == "train" and rest.image_key == "coco:val2014:000000000003"


def test_negclip_tsv_reads_list_literals_and_never_runs_them(tmp_path: Path) -> None:
    path = tmp_path / "n.tsv"
    head = "\ttitle\tfilepath\tneg_caption\tneg_image\n"
    path.write_text(
        head + "0\tA cat on a mat.\tcoco/val2014/COCO_val2014_000000184613.jpg\t['A mat on a cat .', \"it's\"]\t[1]\n"
    )
    (record,) = sources.negclip_tsv(path, Format())
    assert record.negatives == ("A mat on a cat .", "it's")
    assert record.image_key == "coco:val2014:000000184613"
    path.write_text(head + "0\tA\tcoco/val2014/1.jpg\t[__import__('os').getcwd()]\t[1]\n")
    (faulty,) = sources.negclip_tsv(path, Format())
    assert faulty.fault is not None and "neg_caption is no Python list of texts: [__import__" in faulty.fault[1]
    path.write_text("title\tpath\n")
    with pytest.raises(UserError, match=r"n.tsv has no column 'filepath', found \['title', 'path'\]"):
        list(sources.negclip_tsv(path, Format()))


def test_the_real_negclip_file_reads_whole() -> None:
    path = real("formats/neg_clip_valid.tsv")
    counts: dict[int, int] = {}
    for record in sources.negclip_tsv(path, Format()):
        counts[len(record.negatives)] = counts.get(len(record.negatives), 0) + 1
    assert counts == {1: 2891, 2: 1418, 3: 480, 4: 47, 5: 3}


def test_degla_json_builds_the_file_name(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps([{"image_id": 9, "original": "A plate.", "enhanced": ["b", "c", "d", "e"]}]))
    (record,) = sources.degla_json(path, Format())
    assert (record.image, record.negatives) == ("COCO_train2014_000000000009.jpg", ("b", "c", "d", "e"))
    path.write_text(json.dumps([{"image_id": 9, "original": "A plate."}]))
    with pytest.raises(UserError, match="lacks 'enhanced'"):
        list(sources.degla_json(path, Format()))


def test_sidecar_folder(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "sub"
    folder.mkdir(parents=True)
    for name in ("a.png", "a.json", "[1] b.JPG"):
        (folder / name).write_bytes(b"")
    for name, text in {"a.txt": "one\ntwo\n", "[1] b.txt": "three\n", "alone.txt": "four\n"}.items():
        (folder / name).write_text(text)
    records = read("folder", tmp_path)
    found = {r.caption: r.image for r in records if r.fault is None}
    assert found == {"one": "sub/a.png", "two": "sub/a.png", "three": "sub/[1] b.JPG"}
    assert [r.fault for r in records if r.caption == "four"] == [("image_missing", "no picture beside sub/alone.txt")]


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("image,caption\n")
    with pytest.raises(UserError, match=r"images is not there; .* ingest.format.images"):
        sources.find("csv", tmp_path, Format())
    with pytest.raises(UserError, match=r"\*.tar is not there; .* ingest.format.captions"):
        sources.find("webdataset", tmp_path, Format(captions="*.tar"))


def test_a_format_added_to_the_table_is_ingested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spaced(path: Path, layout: Format) -> Iterator[Record]:
        for number, line in enumerate(path.read_text(layout.encoding).splitlines(), start=1):
            image, _, caption = line.partition(" ")
            yield Record(f"{path.name}:{number}", image, f"spaced:{image}", caption)

    with pytest.raises(ValueError, match="one of scenes, csv, coco"):
        Config(source="spaced")
    monkeypatch.setitem(sources.SOURCES, "spaced", sources.SourceFormat(spaced))
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    (tmp_path / "c.txt").write_text("a.png A red cup.\nb.png Nobody.\n")
    config = Config(source="spaced", root=tmp_path, format=Format(captions="c.txt"))
    assert set(STAGE.outside(config)) == {"captions c.txt", "images"}
    meta = STAGE.run(config, {}, tmp_path / "out", silent)
    assert (meta["source"], meta["accepted"], meta["rejected"]) == ("spaced", 1, 1)
    assert "spaced" in Config.model_json_schema()["properties"]["source"]["enum"]


@pytest.mark.parametrize(
    ("source", "content"),
    [
        ("coco", "[" * 100_000),
        ("coco", "9" * 5000),
        ("degla_json", '[{"image_id": Infinity, "original": "a", "enhanced": ["b"]}]'),
        ("degla_json", '[{"image_id": 1, "original": "a", "enhanced": "xyz"}]'),
        ("negclip_tsv", '"'),
    ],
)
def test_a_hostile_file_is_one_line(tmp_path: Path, source: str, content: str) -> None:
    (tmp_path / "c").write_text(content)
    with pytest.raises(UserError):
        read(source, tmp_path, captions="c", images=".")


@pytest.mark.parametrize(
    "row",
    [
        {"original": 5, "enhanced": ["b"]},
        {"original": "a", "enhanced": [None]},
        {"original": "a", "enhanced": ["\ud800"]},
    ],
)
def test_a_value_that_is_no_text_is_a_fault(tmp_path: Path, row: dict) -> None:
    (tmp_path / "c").write_text(json.dumps([row | {"image_id": 1}]))
    (record,) = read("degla_json", tmp_path, captions="c", images=".")
    assert record.fault is not None and record.fault[0] == "row_shape"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ROWS = {
    "coco": lambda value: {"images": [{"id": 1, "file_name": value}], "annotations": [{"image_id": 1, "id": value}]},
    "karpathy": lambda value: {"images": [{"split": "train", "filename": "a.png", "sentences": [{"raw": value}]}]},
    "degla_json": lambda value: [{"image_id": value, "original": value, "enhanced": [value]}],
    "csv": lambda value: value,
    "negclip_tsv": lambda value: value,
}


@given(source=st.sampled_from(list(ROWS)), value=JSON, raw=st.none() | st.binary(max_size=40))
def test_whatever_a_file_says_it_is_records_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, source: str, value: object, raw: bytes | None
) -> None:
    root = tmp_path_factory.getbasetemp()
    (root / "c").write_bytes(json.dumps(ROWS[source](value)).encode() if raw is None else raw)
    try:
        for record in read(source, root, captions="c", images="."):
            "".join([record.origin, record.image_key, *record.negatives]).encode()
            assert isinstance(record.image, str) and isinstance(record.caption, str)
    except UserError as error:
        assert str(error).isprintable()
