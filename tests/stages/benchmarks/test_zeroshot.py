"""torchvision's eleven sets, each from a few pictures in the layout its authors publish."""

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from torchvision import datasets

from pipeline.clip import imagenet_prompts
from pipeline.errors import UserError
from stages.benchmarks import loaders as benchmarks
from stages.benchmarks import zeroshot
from stages.benchmarks.registry import registry
from stages.benchmarks.rows import Row, Subset
from stages.evaluate.aggregates import definitions
from tests.stages.benchmarks.files import assert_refused
from tests.stages.small_road import picture, write_benchmarks

SETS = registry()["zeroshot"]["subsets"]


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def pictures(folder: Path, *names: str) -> None:
    for name in names:
        picture(folder / name, "red", "blue")


def cifar(kind: Any, base: str, labels: str, classes: list[str]) -> Callable[[Path, Any], None]:
    def write(folder: Path, patch: Any) -> None:
        """Its test batch; torchvision also asks for the train batches and for every file's md5."""
        data = np.zeros((4, 3072), np.uint8)
        data[:, :1024] = np.arange(4)[:, None] * 60  # how red row i is
        files = {
            **{name: {"data": data, labels: [0] * 4} for name, _ in kind.train_list},
            kind.test_list[0][0]: {"data": data, labels: [1, 0, 1, 1]},
            kind.meta["filename"]: {kind.meta["key"]: classes},
        }
        for name, content in files.items():
            put(folder / base / name, "")
            (folder / base / name).write_bytes(pickle.dumps(content))

        def digest(name: str) -> str:
            return hashlib.md5((folder / base / name).read_bytes()).hexdigest()

        patch.setattr(kind, "train_list", [[name, digest(name)] for name, _ in kind.train_list])
        patch.setattr(kind, "test_list", [[name, digest(name)] for name, _ in kind.test_list])
        patch.setattr(kind, "meta", kind.meta | {"md5": digest(kind.meta["filename"])})

    return write


def food101(folder: Path, _: Any) -> None:
    put(
        folder / "food-101/meta/test.json",
        json.dumps({"baby_back_ribs": ["baby_back_ribs/2"], "apple_pie": ["apple_pie/1"]}),
    )
    pictures(folder / "food-101/images", "baby_back_ribs/2.jpg", "apple_pie/1.jpg")


def pets(folder: Path, _: Any) -> None:
    put(folder / "oxford-iiit-pet/annotations/test.txt", "american_bulldog_7 2 2 1\nAbyssinian_1 1 1 1\n")
    pictures(folder / "oxford-iiit-pet/images", "american_bulldog_7.jpg", "Abyssinian_1.jpg")


def flowers102(folder: Path, patch: Any) -> None:
    base = folder / "flowers-102"
    pictures(base / "jpg", "image_00001.jpg", "image_00002.jpg", "image_00003.jpg")
    scipy.io.savemat(base / "imagelabels.mat", {"labels": np.array([[61, 98, 17]])})
    scipy.io.savemat(base / "setid.mat", {"trnid": [[3]], "valid": [[3]], "tstid": np.array([[1, 2]])})
    known = {key: (name, hashlib.md5((base / name).read_bytes()).hexdigest()) for key, name in
             (("label", "imagelabels.mat"), ("setid", "setid.mat"))}  # fmt: skip
    patch.setattr(datasets.Flowers102, "_file_dict", datasets.Flowers102._file_dict | known)


def sun397(folder: Path, _: Any) -> None:
    put(folder / "SUN397/ClassName.txt", "/a/abbey\n/a/apartment_building/outdoor\n")
    abbey = [f"a/abbey/sun_{number}.jpg" for number in "abc"]
    pictures(folder / "SUN397", *abbey, "a/apartment_building/outdoor/sun_x.jpg")


def cars(folder: Path, _: Any) -> None:
    base = folder / "stanford_cars"
    pictures(base / "cars_test", "00001.jpg", "00002.jpg")
    row = [("class", "O"), ("fname", "O")]
    notes = np.array([(2, "00001.jpg"), (1, "00002.jpg")], dtype=row)
    scipy.io.savemat(base / "cars_test_annos_withlabels.mat", {"annotations": notes})
    (base / "devkit").mkdir()
    names = np.array(["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"], dtype=object)
    scipy.io.savemat(base / "devkit/cars_meta.mat", {"class_names": names})


def dtd(folder: Path, _: Any) -> None:
    put(folder / "dtd/dtd/labels/test1.txt", "polka-dotted/p_1.jpg\nbanded/b_1.jpg\n")
    pictures(folder / "dtd/dtd/images", "polka-dotted/p_1.jpg", "banded/b_1.jpg")


def caltech101(folder: Path, _: Any) -> None:
    top = folder / "caltech101/101_ObjectCategories"
    pictures(top, "BACKGROUND_Google/image_0001.jpg", "Faces/image_0001.jpg", "Faces/image_0002.jpg")
    pictures(top, "car_side/image_0001.jpg", "ceiling_fan/image_0001.jpg")


def aircraft(folder: Path, _: Any) -> None:
    data = folder / "fgvc-aircraft-2013b/data"
    put(data / "variants.txt", "707-320\nF-16A/B\n")
    put(data / "images_variant_test.txt", "0000002 F-16A/B\n0000001 707-320\n")
    pictures(data / "images", "0000001.jpg", "0000002.jpg")


def imagenet(folder: Path, _: Any) -> None:
    wnids = [f"n{number:08d}" for number in range(1000)]
    picture(folder / "val" / wnids[0] / "ILSVRC2012_val_00000001.JPEG", "red", "blue")
    data = (folder / "val" / wnids[0] / "ILSVRC2012_val_00000001.JPEG").read_bytes()
    for wnid in wnids[1:]:
        (folder / "val" / wnid).mkdir()
        (folder / "val" / wnid / "x.JPEG").write_bytes(data)
    torch.save(({wnid: (wnid,) for wnid in wnids}, []), folder / "meta.bin")


WRITERS: dict[str, Callable[[Path, Any], None]] = {
    "cifar10": cifar(datasets.CIFAR10, "cifar-10-batches-py", "labels", ["airplane", "automobile"]),
    "cifar100": cifar(datasets.CIFAR100, "cifar-100-python", "fine_labels", ["apple", "aquarium_fish"]),
    "food101": food101, "pets": pets, "flowers102": flowers102, "sun397": sun397, "cars": cars, "dtd": dtd,
    "caltech101": caltech101, "aircraft": aircraft, "imagenet": imagenet,
}  # fmt: skip

EXPECTED = {
    "cifar10": ["airplane", "automobile"],
    "cifar100": ["apple", "aquarium fish"],
    "food101": ["apple pie", "baby back ribs"],
    "pets": ["Abyssinian", "American Bulldog"],
    "sun397": ["abbey", "apartment building outdoor"],
    "cars": ["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"],
    "dtd": ["banded", "polka-dotted"],
    "caltech101": ["off-center face", "side of a car", "ceiling fan"],
    "aircraft": ["707-320", "F-16A/B"],
}
"""Names as CLIP's data/prompts.md has them, in the order of torchvision's class index."""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Subset]:
    def read(name: str) -> Subset:
        folder = tmp_path / "zeroshot" / name
        folder.mkdir(parents=True)
        WRITERS[name](folder, monkeypatch)
        (subset,) = benchmarks.load("zeroshot", tmp_path, official=False)
        return subset

    zeroshot.open_cifar.cache_clear()
    return read


def test_the_registry_has_the_eleven_sets_of_the_paper() -> None:
    assert set(SETS) == set(WRITERS)
    counted = {name: len(one["templates"]) for name, one in SETS.items() if "templates" in one}
    assert counted == {"cifar10": 18, "cifar100": 18, "food101": 1, "pets": 1, "flowers102": 1, "sun397": 2, "cars": 8,
                       "dtd": 8, "caltech101": 34, "aircraft": 2}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_each_layout_is_read_by_torchvision_with_its_names_in_order(load: Any, name: str) -> None:
    subset = load(name)
    assert subset.rule == "classify" and len(subset.prompts[0]) == len(SETS[name].get("templates", range(80)))
    for row in subset.rows:
        assert row.image is not None and row.image().mode == "RGB"
    if name in EXPECTED:
        assert [prompts[0] for prompts in subset.prompts] == [
            SETS[name]["templates"][0].replace("{}", spoken) for spoken in EXPECTED[name]
        ]


def test_labels_belong_to_their_images(load: Any) -> None:
    assert {Path(row.row_id).name: row.right for row in load("pets").rows} == {
        "american_bulldog_7.jpg": (1,),
        "Abyssinian_1.jpg": (0,),
    }


def test_cifar_images_come_out_of_the_test_batch(load: Any) -> None:
    subset = load("cifar100")
    assert [row.right for row in subset.rows] == [(1,), (0,), (1,), (1,)]
    assert [row.image().getpixel((5, 5))[0] for row in subset.rows] == [0, 60, 120, 180]


def test_flowers_have_the_names_of_prompts_md(load: Any) -> None:
    """Checked against the list torchvision carries; three of its names differ from CLIP's."""
    subset = load("flowers102")
    labels = datasets.Flowers102.classes
    assert {row.group: row.right for row in subset.rows} == {"cautleya spicata": (60,), "mexican petunia": (97,)}
    spoken = [zeroshot.spoken(label, SETS["flowers102"]) for label in labels]
    assert len(set(spoken)) == 102 == SETS["flowers102"]["classes"]
    changed = {one for one, label in zip(spoken, labels, strict=True) if one != label}
    assert changed == {"pink and yellow dahlia", "globe flower", "air plant"}


def test_imagenet_has_openais_names_and_templates(load: Any) -> None:
    subset = load("imagenet")
    assert len(subset.rows) == len(subset.prompts) == 1000
    names, templates = imagenet_prompts()
    assert (names[0], names[-1], len(templates)) == ("tench", "toilet paper", 80)
    assert subset.prompts[999][0] == "a bad photo of a toilet paper."


def test_a_share_is_the_same_whatever_order_the_files_lie_in() -> None:
    rows = [Row(f"{label}/{i}.jpg", "", None, (), (0,), label) for label in "ab" for i in range(40)]
    for share in ({"take": 30}, {"per_class": 10}):
        chosen, name = zeroshot.fixed_share(rows, share)
        again, _ = zeroshot.fixed_share(rows[::-1], share)
        assert chosen == again and name.startswith("sha256_")
    assert len(zeroshot.fixed_share(rows, {"take": 30})[0]) == 30
    per_class = [row.group for row in zeroshot.fixed_share(rows, {"per_class": 10})[0]]
    assert per_class.count("a") == per_class.count("b") == 10
    # The rule in words: the smallest sha256 of the row ids. Frozen: another choice would be another benchmark.
    smallest = sorted(rows, key=lambda row: hashlib.sha256(row.row_id.encode()).hexdigest())[:30]
    assert {row.row_id for row in zeroshot.fixed_share(rows, {"take": 30})[0]} == {row.row_id for row in smallest}


def test_the_protocol_names_the_split_and_the_rows(load: Any, tmp_path: Path) -> None:
    subset = load("caltech101")
    assert ";split=sha256_take_5677" in subset.protocol
    picture(tmp_path / "zeroshot/caltech101/caltech101/101_ObjectCategories/Faces/image_0003.jpg", "red", "blue")
    (longer,) = benchmarks.load("zeroshot", tmp_path, official=False)
    assert longer.protocol != subset.protocol


def test_official_counts_rows_and_classes(load: Any, tmp_path: Path) -> None:
    load("dtd")
    with pytest.raises(UserError, match="zeroshot/dtd has valid 2; expected 1880"):
        benchmarks.load("zeroshot", tmp_path, official=True)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("food101", lambda folder: (folder / "food-101/meta/test.json").write_text("{"), "cannot read"),
        ("food101", lambda folder: (folder / "food-101/meta/test.json").unlink(), "lacks food-101/meta/test.json"),
        ("cifar10", lambda folder: (folder / "cifar-10-batches-py/test_batch").write_bytes(b"?"), "corrupted"),
        ("dtd", lambda folder: put(folder / "dtd/dtd/labels/test1.txt", "banded/b_1.jpg\nbanded/b_1.jpg\n"), "row ids"),
        ("aircraft", lambda folder: put(folder / "fgvc-aircraft-2013b/data/variants.txt", "707-320\n"), "F-16A/B"),
        ("imagenet", lambda folder: next((folder / "val/n00000007").iterdir()).unlink(), "n00000007"),
    ],
)  # fmt: skip
def test_what_torchvision_cannot_read_is_one_line(
    load: Any, tmp_path: Path, name: str, damage: Any, message: str
) -> None:
    load(name)
    damage(tmp_path / "zeroshot" / name)
    zeroshot.open_cifar.cache_clear()
    with pytest.raises(UserError, match=message) as caught:
        benchmarks.load("zeroshot", tmp_path, official=False)
    assert "\n" not in str(caught.value)


def test_mean11_takes_the_papers_metric_of_each_set() -> None:
    """Two classes, of which the first has three times the rows and is always right: top-1 0.75, mean per class 0.5."""
    present = {("zeroshot", name): ["a", "b"] for name in SETS}
    (mean11,) = (item for item in definitions(present) if item.name == "zeroshot.mean11")
    value = {("a", None): 1.0, ("b", None): 0.0}
    total = sum(weight * (0.75 if rows[0][2] is None else value[rows[0][2], None]) for rows, weight in mean11.cells)
    assert total == pytest.approx((7 * 0.75 + 4 * 0.5) / 11)
    assert sum(weight for _, weight in mean11.cells) == pytest.approx(1)
    del present["zeroshot", "dtd"]
    assert "zeroshot.mean11" not in {item.name for item in definitions(present)}


def test_a_list_cannot_name_images_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "zeroshot" / "food101"
    food101(folder, None)
    listed = {"baby_back_ribs": ["baby_back_ribs/../../../../../outside"], "apple_pie": ["apple_pie/1"]}
    put(folder / "food-101/meta/test.json", json.dumps(listed))
    picture(tmp_path / "outside.jpg", "red", "blue")
    with pytest.raises(UserError, match="a file name below food101"):
        benchmarks.read("zeroshot", tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("zeroshot/x/notes.txt", "?", "has no classes.json"),
    ],
)
def test_broken_files_are_one_line_that_says_where(tmp_path: Path, file: str, content: object, message: str) -> None:
    assert_refused(tmp_path, file, content, message)


def test_each_class_has_its_prompts(tmp_path: Path) -> None:
    write_benchmarks(tmp_path)
    (subset,) = benchmarks.load("zeroshot", tmp_path, official=False)
    assert subset.prompts[0] == ("a picture of a red circle.", "a red circle")
    assert len(subset.rows) == 12 and subset.rows[-1].right == (5,)


def test_folders_that_do_not_match_the_names_are_refused(tmp_path: Path) -> None:
    write_benchmarks(tmp_path)
    (tmp_path / "zeroshot/circles/images/extra").mkdir()
    with pytest.raises(UserError, match="6 classes but .* 7 folders"):
        benchmarks.load("zeroshot", tmp_path, official=False)


def test_pet_files_are_those_torchvision_shows(tmp_path: Path) -> None:
    """The private lists behind its dataset; a release of torchvision that renames or reorders them fails here."""
    pets(tmp_path, None)
    labels, listed = zeroshot.pet_files(tmp_path)
    found = datasets.OxfordIIITPet(tmp_path, split="test")
    assert labels == found.classes == ["Abyssinian", "American Bulldog"]
    assert [index for _, index in listed] == [found[row][1] for row in range(len(found))]
    assert {path.name: labels[index] for path, index in listed} == {
        "Abyssinian_1.jpg": "Abyssinian", "american_bulldog_7.jpg": "American Bulldog",
    }  # fmt: skip
