"""Zero-shot classification: folders of images, and eleven sets in torchvision's own layouts.

Below `zeroshot/<set>/` lies either

    classes.json  images/<class>/*    {classnames, templates}; classes in the order of the sorted folder names
    what torchvision's class of that set has below its `root`, for the sets of data/benchmarks.yaml

A class is called as torchvision calls it, `_` and `/` read as spaces where the registry says so, with the registry's
exceptions: that gives the names and templates of CLIP's data/prompts.md whatever order the classes come in.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifact import digest
from pipeline.clip import imagenet_prompts
from pipeline.errors import UserError
from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Cells, Present, mean, nested
from stages.benchmarks.registry import registry
from stages.benchmarks.rows import ImageRef, Part, Row, Subset

if TYPE_CHECKING:
    from PIL.Image import Image


def read(folder: Path) -> Iterator[Subset]:
    """One subset per set. Raises UserError for a set it cannot read and for a folder that is no set."""
    known = registry()["zeroshot"]["subsets"]
    for path in sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        if (path / "classes.json").is_file():
            yield _folders(path)
        elif path.name in known:
            yield _torchvision(path, known[path.name])
        else:
            raise UserError(
                "evaluate", f"{path} has no classes.json", f"one, or a set of {', '.join(known)}", "move it elsewhere"
            )


def _folders(folder: Path) -> Subset:
    path, images = folder / "classes.json", folder / "images"
    item = fields.read_json(path)
    names, templates = (
        [fields.worded(path, "", key, text) for text in fields.field(path, "", item, key, list)]
        for key in ("classnames", "templates")
    )
    labels = sorted(entry.name for entry in images.iterdir() if entry.is_dir()) if images.is_dir() else []
    if not names or not templates:
        fields.wrong(path, "", "classnames, templates", [names, templates], "at least one of each")
    if len(labels) != len(names):
        raise UserError(
            "evaluate",
            f"{path} names {len(names)} classes but {images} has {len(labels)} folders",
            "one folder per class, in the order of the sorted folder names",
            f"mend {path}",
        )
    rows = tuple(
        Row(f"{label}/{file.name}", f"{folder.name}/{label}/{file.name}", ImageRef(file), (), (index,), label)
        for index, label in enumerate(labels)
        for file in sorted((images / label).iterdir())
        if file.is_file() and not file.name.startswith(".")
    )
    return Subset("zeroshot", folder.name, "classify", "wrong", fields.digest(path), rows, _prompts(names, templates))


def _prompts(names: list[str], templates: list[str]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(template.replace("{}", name) for template in templates) for name in names)


# -- torchvision -------------------------------------------------------------------------------------------------------


def _torchvision(folder: Path, facts: dict[str, Any]) -> Subset:
    labels, images = _opened(folder, facts)
    if facts.get("names") == "imagenet":
        names, templates = imagenet_prompts()
        if len(names) != len(labels):
            raise UserError(
                "evaluate", f"{folder} has {len(labels)} classes", f"all {len(names)} of ImageNet", fields.FIX
            )
    else:
        names, templates = [spoken(label, facts) for label in labels], facts["templates"]
    rows = [
        Row(row_id, f"{folder.name}/{row_id}", image, (), (index,), labels[index]) for row_id, image, index in images
    ]
    rows, split = fixed_share(rows, facts.get("share"))
    prompts = _prompts(names, templates)
    content = digest([prompts, [(row.row_id, row.group) for row in rows]])[:12]
    return Subset("zeroshot", folder.name, "classify", "wrong", content, tuple(rows), prompts, split=split)


def spoken(label: str, facts: dict[str, Any]) -> str:
    """What a class is called in a prompt, from torchvision's label."""
    spaces: str = facts.get("spaces", "")
    plain = label.translate(str.maketrans(spaces, " " * len(spaces)))
    return str(facts.get("names", {}).get(label, plain))


def _opened(folder: Path, facts: dict[str, Any]) -> tuple[list[str], list[tuple[str, ImageRef, int]]]:
    """Labels by class index; row id, image and class index of every image, sorted by row id."""
    from torchvision import datasets

    kind = facts["torchvision"]
    lacking = [name for name in facts["needs"] if not (folder / name).exists()]
    if lacking:
        raise UserError(
            "evaluate",
            f"{folder} lacks {lacking[0]}",
            f"what torchvision.datasets.{kind} has below its root: {', '.join(facts['needs'])}",
            f"degla data list zeroshot says where it comes from; or move {folder} away",
        )
    try:
        if kind.startswith("CIFAR"):
            found = open_cifar(kind, folder)
            file = folder / found.base_folder / found.test_list[0][0]
            packed = [ImageRef(file, part=Part(read_cifar, kind, row)) for row in range(len(found))]
            return found.classes, [(str(row), packed[row], found.targets[row]) for row in range(len(found))]
        if kind == "OxfordIIITPet":
            labels, listed = pet_files(folder)
        elif kind == "Caltech101":  # has no `loader` either, but its lists are public
            found = datasets.Caltech101(folder)
            top = Path(found.root) / "101_ObjectCategories"
            numbered = zip(found.index, found.y, strict=True)
            labels = found.categories
            listed = [(top / labels[y] / f"image_{number:04d}.jpg", y) for number, y in numbered]
        else:
            found = getattr(datasets, kind)(folder, **facts.get("arguments", {}), loader=Path)
            labels = found.wnids if kind == "ImageNet" else found.classes
            listed = [found[index] for index in range(len(found))]
        named = sorted((path.relative_to(folder).as_posix(), int(index)) for path, index in listed)
    except Exception as error:  # torchvision does not say what it raises for files of another shape
        raise UserError(
            "evaluate",
            f"torchvision.datasets.{kind} cannot read {folder}: {error!r}",
            "the set as its authors publish it",
            fields.FIX,
        ) from error
    rows = [(*fields.below(folder, name, "image", name, folder), index) for name, index in named]
    return list(labels), rows


def pet_files(folder: Path) -> tuple[list[str], list[tuple[Path, int]]]:
    """Classes of the Oxford-IIIT Pet test split, and each image's file with its class index.

    The one use of torchvision's private attributes: this class takes no `loader`, so nothing public tells its files.
    """
    from torchvision import datasets

    found = datasets.OxfordIIITPet(folder, split="test")
    return found.classes, list(zip(found._images, found._labels, strict=True))


@lru_cache(maxsize=2)
def open_cifar(kind: str, folder: Path) -> Any:
    """The data set; torchvision holds its pickles against their md5 before it opens them."""
    from torchvision import datasets

    return getattr(datasets, kind)(folder, train=False)


def read_cifar(path: Path, kind: str, row: int) -> "Image":
    """One image of a CIFAR test set."""
    from PIL import Image

    return Image.fromarray(open_cifar(kind, path.parents[1]).data[row])


def fixed_share(rows: list[Row], share: dict[str, int] | None) -> tuple[list[Row], str]:
    """The part of a set without an official split that is scored, and its name.

    Those rows whose id has the smallest sha256: of all (`take`), or of each class (`per_class`). Everyone gets the same
    ones, in whatever order the files lie.
    """
    if share is None:
        return rows, ""
    pools: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: hashlib.sha256(row.row_id.encode()).digest()):
        pools[str(row.group) if "per_class" in share else ""].append(row)
    ((how, count),) = share.items()
    chosen = [row for pool in pools.values() for row in pool[:count]]
    return sorted(chosen, key=lambda row: row.row_id), f"sha256_{how}_{count}"


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Over the sets, with the paper's eleven there by its metrics; then top-1, mean per class and top-5 of each set."""
    every = [[(benchmark, name, None)] for name in names]
    says = f"plain mean of top-1 over {len(names)} sets"
    made = [mean(f"{benchmark}.mean", says, every, headline="retention")]
    eleven: list[Cells] = []
    metrics = {name: facts["metric"] for name, facts in registry()[benchmark]["subsets"].items()}
    for name in names:
        rows, classes = [[(benchmark, name, None)]], sorted(present[benchmark, name])
        cells, chance = [[(benchmark, name, label)] for label in classes], 1 / len(classes)
        top1 = mean(f"{benchmark}.{name}.top1", "top-1 accuracy", rows, chance=chance, subset=name)
        says = f"top-1, mean over {len(classes)} classes"
        per_class = mean(f"{benchmark}.{name}.mean_per_class", says, cells, chance=chance)
        made += [top1, per_class]
        if len(classes) > 5:
            made.append(mean(f"{benchmark}.{name}.top5", "top-5 accuracy", rows, measure="at5", chance=5 * chance))
        if name in metrics:
            eleven.append((per_class if metrics[name] == "mean_per_class" else top1).cells)
    if len(eleven) == len(metrics):
        says = (
            "plain mean of the 11 sets, mean per class for pets, flowers102, caltech101, aircraft, else top-1 (DeGLA)"
        )
        made.insert(1, Aggregate(f"{benchmark}.mean11", says, nested([[cells] for cells in eleven])))
    return made
