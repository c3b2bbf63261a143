import contextlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from stages.ingest import sources
from stages.ingest.records import Format, Record


def read(kind: str, root: Path, **layout: Any) -> list[Record]:
    (root / "images").mkdir(exist_ok=True)
    source = sources.find(kind, root, Format(**({"allow_pickle": True} | layout)))
    return list(sources.read(source, root / "unpacked"))


def save_ce_clip(path: Path, rows: list[Any]) -> None:
    array = np.empty(len(rows), dtype=object)
    array[:] = rows
    np.save(path, array, allow_pickle=True)


ANNOTATION = {
    "image_id": np.int64(9),
    "caption": "A cat sits on a red mat.",
    "relation_aug_caption": "A mat sits on a red cat.",
    "adj_aug_caption": "A cat sits on a blue mat.",
    "noun_aug_caption": "###",
    "verb_aug_caption": "A cat lies on a red mat.",
    "valid_caption": [1, 1, 0, 0, 1],
}


@pytest.mark.parametrize("kind", ["ce_clip", "cc_neg"])
def test_pickles_are_rejected_until_they_are_allowed(tmp_path: Path, kind: str) -> None:
    (tmp_path / "data").write_bytes(b"")
    with pytest.raises(UserError, match=rf"ingest: {kind} files are pickles.*set ingest.format.allow_pickle=true"):
        read(kind, tmp_path, captions="data", allow_pickle=False)


def test_ce_clip_brings_its_valid_negatives_with_their_types(tmp_path: Path) -> None:
    save_ce_clip(tmp_path / "a.npy", [ANNOTATION, ANNOTATION | {"valid_caption": None, "image_path": "x/y.jpg"}])
    save_ce_clip(tmp_path / "b.npy", [])
    one, two = read("ce_clip", tmp_path, captions="*.npy")
    assert one.image == "COCO_train2014_000000000009.jpg" and one.image_key == "coco:train2014:000000000009"
    assert one.negatives == ("A mat sits on a red cat.", "A cat lies on a red mat.")
    assert one.types == ("swap_nouns", None)
    assert two.image == "x/y.jpg" and len(two.negatives) == 3, "'###' says that there is none"


def test_cc_neg_brings_caption_and_negation_and_its_own_test_split(tmp_path: Path) -> None:
    notes = [
        {"json": {"caption": f"A man with hat {i}."}, "sop_data": {"negative-prompt": f"A man, without hat {i}."}}
        for i in range(3)
    ]
    paths = [f"/home/authors/ccneg_images/{i}.jpg" for i in range(3)]
    torch.save({"image_paths": paths, "annotations": notes}, tmp_path / "cc.pt")
    records = read("cc_neg", tmp_path, captions="cc.pt", evaluation_rows=1)
    assert [(r.image, r.split) for r in records] == [("0.jpg", "train"), ("1.jpg", "train"), ("2.jpg", "test")]
    assert records[0].negatives == ("A man without hat 0.",) and records[0].caption == "A man with hat 0."


class Evil:
    """What a pickle may not do: run a command when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("kind", ["ce_clip", "cc_neg"])
def test_code_in_a_pickle_is_rejected_and_not_run(tmp_path: Path, kind: str) -> None:
    evil = Evil(tmp_path / "ran")
    if kind == "ce_clip":
        save_ce_clip(tmp_path / "data.npy", [ANNOTATION, evil])
    else:
        torch.save({"image_paths": ["a"], "annotations": [evil]}, tmp_path / "data.pt")
    with pytest.raises(UserError, match=r"ingest: data.* cannot be read as plain data"):
        read(kind, tmp_path, captions="data.*")
    assert not (tmp_path / "ran").exists()
    np.load(tmp_path / "data.npy", allow_pickle=True) if kind == "ce_clip" else pickle.loads(pickle.dumps(evil))
    assert (tmp_path / "ran").exists(), "the same file does run code where it is loaded without care"


@pytest.mark.parametrize(
    ("kind", "content"),
    [("ce_clip", b""), ("ce_clip", b"\x93NUMPY\x01\x00"), ("cc_neg", b""), ("cc_neg", b"PK\x03\x04 half")],
)
def test_broken_files_are_one_line(tmp_path: Path, kind: str, content: bytes) -> None:
    (tmp_path / "data").write_bytes(content)
    with pytest.raises(UserError, match="ingest: data cannot be read as plain data"):
        read(kind, tmp_path, captions="data")


def test_another_shape_is_said_with_its_row(tmp_path: Path) -> None:
    save_ce_clip(tmp_path / "a.npy", [ANNOTATION, {"caption": "x"}])
    with pytest.raises(UserError, match=r"a.npy:1 lacks 'image_id'|a.npy:1 lacks 'relation_aug_caption'"):
        read("ce_clip", tmp_path, captions="a.npy")
    torch.save([1, 2], tmp_path / "cc.pt")
    with pytest.raises(UserError, match="cc.pt:0 lacks"):
        read("cc_neg", tmp_path, captions="cc.pt")


class Forged:
    """Arrays whose kind lies about what is in them: eight bytes of the file as the address of an object."""

    def __reduce__(self) -> Any:
        state = (1, (1,), Liar(), False, b"A" * 8)
        core: Any = np._core  # type: ignore[attr-defined]
        return core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state


class Liar:
    def __reduce__(self) -> Any:
        return np.dtype, ("V8", False, True), (3, "|", None, ("x",), {"x": (np.dtype("O"), 0)}, 8, 1, 0)


def test_a_forged_array_is_rejected_and_not_followed(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    (tmp_path / "data.npy").write_bytes(header.getvalue() + pickle.dumps(Forged(), 4))
    with pytest.raises(UserError, match="holds values of kind"):
        read("ce_clip", tmp_path, captions="data.npy")


@pytest.mark.parametrize("kind", ["ce_clip", "cc_neg"])
@settings(deadline=None)
@given(place=st.integers(0, 400), byte=st.integers(0, 255), cut=st.booleans())
def test_no_damage_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, kind: str, place: int, byte: int, cut: bool
) -> None:
    root = tmp_path_factory.getbasetemp()
    if kind == "ce_clip":
        save_ce_clip(root / "whole.npy", [ANNOTATION])
    else:
        torch.save({"image_paths": ["a"], "annotations": [5]}, root / "whole.npy", _use_new_zipfile_serialization=False)
    whole = bytearray((root / "whole.npy").read_bytes())
    whole[place % len(whole)] = byte
    (root / "data.npy").write_bytes(whole[:place] if cut else whole)
    with contextlib.suppress(UserError):
        read(kind, root, captions="data.npy")


def test_a_header_that_is_no_python_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data.npy").write_bytes(b"\x93NUMPY\x01\x00\x04\x00{'a'" + b"x")
    with pytest.raises(UserError, match="cannot be read as plain data"):
        read("ce_clip", tmp_path, captions="data.npy")
