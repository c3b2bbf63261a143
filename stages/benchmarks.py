"""Benchmarks as rows: each benchmark's own files, read and checked, turned into one row type and a handful of rules.

Expected below the root (`evaluate.root`, or the built-in world's `benchmarks/`):

    sugarcrepe/<subset>.json  images/          dict of {filename, caption, negative_caption}
    valse/<instrument>.json   images/          dict of {image_file, caption, foil, mturk, ...}
    aro/visual_genome_relation.json  visual_genome_attribution.json  coco_order.json  flickr30k_order.json  images/
    sugarcrepe_pp/<subset>.json  images/       list of {filename, caption, caption2, negative_caption}
    winoground/examples.jsonl  images/         lines of {id, image_0, image_1, caption_0, caption_1}
    cola/COLA_multiobjects_matching_benchmark.json  images/    list of [picture, caption, picture, caption]
    zeroshot/<set>/classes.json  images/<class>/*        {classnames, templates}; torchvision's ImageFolder order

Rules, with what `similarities` hold:
    choice          one picture, K texts, the right one first; correct when it scores highest (SugarCrepe, VALSE, ARO).
    both            one picture, two right texts and a wrong one; correct when both beat it (SugarCrepe++ ITT).
    texts           no picture; the same three: first-second, first-wrong, second-wrong (SugarCrepe++ TOT).
    square          two pictures, two texts: 0-0, 0-1, 1-0, 1-1; correct when each finds its own (Winoground, COLA).
    classify        one picture against the subset's classes, each the normalised mean of its prompts.
    image_to_text   one picture against all texts of the subset; right when one of its own comes first.
    text_to_image   one text against all pictures of the subset.
The last three keep the best right option and the ten best wrong ones: top-1, top-5 and R@10 are read from these.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from pipeline import tables
from pipeline.artifact import Artifact, file_sha256
from pipeline.errors import UserError
from pipeline.schema import NEGATIVE_TYPES

if TYPE_CHECKING:
    from PIL.Image import Image

REGISTRY = Path(__file__).parents[1] / "data" / "benchmarks.yaml"

Rule = Literal["choice", "both", "texts", "square", "classify", "image_to_text", "text_to_image"]
Tie = Literal["wrong", "right"]


@dataclass(frozen=True)
class Picture:
    """A picture file, or a box of one in pixels (left, top, right, bottom); calling it decodes it as RGB."""

    path: Path
    box: tuple[int, int, int, int] | None = None

    def __call__(self) -> "Image":
        """Decode. Raises UserError when the file is missing or broken."""
        from pipeline.clip import read_picture

        image = read_picture(self.path)
        return image.crop(self.box) if self.box else image


@dataclass(frozen=True)
class Row:
    """One question to a model.

    Attributes:
        row_id: its name within the subset, as the benchmark gives it.
        image_key: the picture, as the unit that is resampled.
        picture: what is shown; None for a row that asks with a text.
        texts: `choice`: the options, the right one first. `text_to_image`: the query.
        right: indices of the right options, into `texts` for `choice`, else into the subset's options.
        other: `square`: the second picture, of the second text.
        group: what a macro rule averages over (relation, attribute pair, class); None = in no group.
    """

    row_id: str
    image_key: str
    picture: Picture | None
    texts: tuple[str, ...] = ()
    right: tuple[int, ...] = (0,)
    group: str | None = None
    other: Picture | None = None


@dataclass(frozen=True)
class Subset:
    """Rows that are scored alike and averaged together.

    Attributes:
        benchmark: family ("valse").
        name: subset of it ("existence").
        rule: see the top of this file.
        tie: what equal similarities count as. SugarCrepe, VALSE and VG-* scripts say wrong, ARO's order sets right.
        digest: of the file the rows come from.
        rows: the questions.
        prompts: `classify`: the prompts of each class; `image_to_text`: the single text of each option.
        pictures: `text_to_image`: the options.
    """

    benchmark: str
    name: str
    rule: Rule
    tie: Tie
    digest: str
    rows: tuple[Row, ...]
    prompts: tuple[tuple[str, ...], ...] = ()
    pictures: tuple[Picture, ...] = ()

    @property
    def protocol(self) -> str:
        """Identity of the measurement: scores with different protocols must not be compared."""
        return f"{self.rule};tie={self.tie};fp32;{self.digest}"


@cache
def registry() -> dict[str, Any]:
    """`data/benchmarks.yaml`."""
    return dict(yaml.safe_load(REGISTRY.read_text()))


def available(root: Path) -> list[str]:
    """Benchmarks whose folder is below the root."""
    return [name for name in LOADERS if (root / name).is_dir()]


def load(name: str, root: Path, *, official: bool) -> list[Subset]:
    """All subsets of one benchmark below a root.

    With `official`, files are held against the registry's row counts and digests. Raises UserError for a missing
    folder or file, broken JSON, a row without a field, changed counts or digests, and when no picture at all is there.
    """
    folder = root / name
    if not folder.is_dir():
        raise UserError(
            "evaluate",
            f"there is no {name} in {root}",
            f"a folder {name} as described in data/benchmarks.yaml",
            f"put it there, or leave {name!r} out of evaluate.benchmarks",
        )
    subsets = list(LOADERS[name](folder))
    if not subsets:
        raise UserError(
            "evaluate",
            f"{folder} holds no benchmark file",
            "the benchmark's own files",
            f"fill {folder} or leave it out",
        )
    for subset in subsets:
        if official:
            assert_official(subset)
    pictures = {row.picture.path for subset in subsets for row in subset.rows if row.picture}
    if pictures and not any(path.is_file() for path in pictures):
        raise UserError(
            "evaluate",
            f"none of the {len(pictures)} pictures of {name} is there, e.g. {min(pictures)}",
            registry()[name]["pictures"],
            f"link the pictures there, or leave {name!r} out of evaluate.benchmarks",
        )
    return subsets


# -- the benchmarks ----------------------------------------------------------------------------------------------------


def _sugarcrepe(folder: Path) -> Iterator[Subset]:
    for path in sorted(folder.glob("*.json")):
        rows = []
        for row_id, item in _items(path):
            filename = _field(path, row_id, item, "filename")
            texts = (_field(path, row_id, item, "caption"), _field(path, row_id, item, "negative_caption"))
            rows.append(Row(row_id, filename, Picture(folder / "images" / filename), texts))
        yield Subset("sugarcrepe", path.stem, "choice", "wrong", _digest(path), tuple(rows))


def _valse(folder: Path) -> Iterator[Subset]:
    """Only rows for which at least two of three annotators chose the caption, as the official scripts do."""
    for path in sorted(folder.glob("*.json")):
        rows = []
        for row_id, item in _items(path):
            votes = _field(path, row_id, item, "mturk", dict)
            if int(votes.get("caption", 0)) < 2:
                continue
            filename = _field(path, row_id, item, "image_file")
            texts = (_field(path, row_id, item, "caption"), _field(path, row_id, item, "foil"))
            phenomenon = _field(path, row_id, item, "linguistic_phenomena")
            rows.append(Row(row_id, filename, Picture(folder / "images" / filename), texts, group=phenomenon))
        yield Subset("valse", path.stem, "choice", "wrong", _digest(path), tuple(rows))


def _aro(folder: Path) -> Iterator[Subset]:
    """The picture is cut to the row's box. Macro groups: relations that are not symmetric; attribute pairs of >= 25."""
    symmetric = frozenset(registry()["aro"]["not_in_macro"])
    for name, stem in (("vg_relation", "visual_genome_relation"), ("vg_attribution", "visual_genome_attribution")):
        path = folder / f"{stem}.json"
        if not path.exists():
            continue
        rows = []
        for row_id, item in _items(path):
            if name == "vg_relation":
                relation = _field(path, row_id, item, "relation_name")
                group = None if relation in symmetric else relation
            else:
                group = "_".join(_field(path, row_id, item, "attributes", list))
            left, top, width, height = (
                int(_field(path, row_id, item, f"bbox_{key}", int | float)) for key in ("x", "y", "w", "h")
            )
            filename = _field(path, row_id, item, "image_path")
            picture = Picture(folder / "images" / filename, (left, top, left + width, top + height))
            texts = (_field(path, row_id, item, "true_caption"), _field(path, row_id, item, "false_caption"))
            rows.append(Row(row_id, filename, picture, texts, group=group))
        if name == "vg_attribution":
            size = Counter(row.group for row in rows)
            rows = [row if size[row.group] >= 25 else _ungrouped(row) for row in rows]
        yield Subset("aro", name, "choice", "wrong", _digest(path), tuple(rows))
    for name in ("coco_order", "flickr30k_order"):
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        rows = []
        for row_id, item in _items(path):
            filename = _field(path, row_id, item, "image_path")
            texts = tuple(_field(path, row_id, item, "caption_options", list))
            rows.append(Row(row_id, filename, Picture(folder / "images" / filename), texts))
        yield Subset("aro", name, "choice", "right", _digest(path), tuple(rows))


def _sugarcrepe_pp(folder: Path) -> Iterator[Subset]:
    """Each file twice: picture against three texts (itt), and the three texts among themselves (tot)."""
    for path in sorted(folder.glob("*.json")):
        rows = []
        for row_id, item in _items(path):
            filename = _field(path, row_id, item, "filename")
            texts = tuple(_field(path, row_id, item, key) for key in ("caption", "caption2", "negative_caption"))
            rows.append(Row(row_id, filename, Picture(folder / "images" / filename), texts))
        without = tuple(Row(row.row_id, row.image_key, None, row.texts) for row in rows)
        yield Subset("sugarcrepe_pp", f"{path.stem}.itt", "both", "wrong", _digest(path), tuple(rows))
        yield Subset("sugarcrepe_pp", f"{path.stem}.tot", "texts", "wrong", _digest(path), without)


def _winoground(folder: Path) -> Iterator[Subset]:
    path = folder / "examples.jsonl"
    if path.exists():
        rows = []
        for row_id, item in _lines(path):
            one, two = (_field(path, row_id, item, f"image_{k}") for k in (0, 1))
            texts = tuple(_field(path, row_id, item, f"caption_{k}") for k in (0, 1))
            first, second = (Picture(folder / "images" / f"{name.removesuffix('.png')}.png") for name in (one, two))
            rows.append(Row(row_id, one, first, texts, other=second))
        yield Subset("winoground", "all", "square", "wrong", _digest(path), tuple(rows))


def _cola(folder: Path) -> Iterator[Subset]:
    """The pictures are given as addresses; their last part is the file name below images/."""
    path = folder / "COLA_multiobjects_matching_benchmark.json"
    if path.exists():
        rows = []
        for row_id, item in _items(path):
            if not (isinstance(item, list) and len(item) == 4 and all(isinstance(part, str) for part in item)):
                raise UserError(
                    "evaluate",
                    f"{path} row {row_id} is {item!r}",
                    "[picture, caption, picture, caption]",
                    "download the file again",
                )
            (one, first, two, second) = item
            one, two = one.rpartition("/")[2], two.rpartition("/")[2]
            pictures = [Picture(folder / "images" / name) for name in (one, two)]
            rows.append(Row(row_id, one, pictures[0], (first, second), other=pictures[1]))
        yield Subset("cola", "multi_object", "square", "wrong", _digest(path), tuple(rows))


def _zeroshot(folder: Path) -> Iterator[Subset]:
    """Folders in torchvision's ImageFolder layout: the class names belong to the class folders in sorted order."""
    for path in sorted(folder.glob("*/classes.json")):
        item = _json(path)
        names = _field(path, "", item, "classnames", list)
        templates = _field(path, "", item, "templates", list)
        images = path.parent / "images"
        folders = sorted(entry.name for entry in images.iterdir() if entry.is_dir()) if images.is_dir() else []
        if len(folders) != len(names):
            raise UserError(
                "evaluate",
                f"{path} names {len(names)} classes but {images} has {len(folders)} folders",
                "one folder per class, in the order of the sorted folder names",
                f"mend {path}",
            )
        prompts = tuple(tuple(template.replace("{}", name) for template in templates) for name in names)
        rows = tuple(
            Row(f"{name}/{file.name}", f"{path.parent.name}/{name}/{file.name}", Picture(file), (), (index,), name)
            for index, name in enumerate(folders)
            for file in sorted((images / name).iterdir())
            if file.is_file() and not file.name.startswith(".")
        )
        yield Subset("zeroshot", path.parent.name, "classify", "wrong", _digest(path), rows, prompts)


def heldout(dataset: Artifact, image_root: Path, most: int) -> list[Subset]:
    """The test split of a dataset artifact: caption against each of its own negatives, one subset per type."""
    captions = _test_split(dataset, most)
    subsets = []
    for kind in NEGATIVE_TYPES:
        rows = tuple(
            Row(row["pair_id"], row["image_key"], Picture(image_root / row["image_uri"]), (row["caption"], row[kind]))
            for row in captions
            if row[kind] is not None
        )
        if rows:
            subsets.append(Subset("heldout", kind, "choice", "wrong", dataset.digest, rows))
    return subsets


def retrieval(dataset: Artifact, image_root: Path, most: int) -> list[Subset]:
    """The test split of a dataset artifact, both directions.

    A caption written of several pictures is one option, right for each of them: equal texts cannot be told apart.
    """
    captions = _test_split(dataset, most)
    if not captions:
        return []
    picture_at: dict[str, int] = {}
    text_at: dict[str, int] = {}
    texts_of: dict[str, list[int]] = defaultdict(list)
    first: dict[str, dict[str, Any]] = {}
    pictures_of: dict[str, list[int]] = defaultdict(list)
    paths = []
    for row in captions:
        key, caption = row["image_key"], row["caption"]
        if key not in picture_at:
            picture_at[key] = len(picture_at)
            paths.append(Picture(image_root / row["image_uri"]))
        text_at.setdefault(caption, len(text_at))
        first.setdefault(caption, row)
        texts_of[key].append(text_at[caption])
        pictures_of[caption].append(picture_at[key])
    to_text = tuple(Row(key, key, paths[index], (), tuple(texts_of[key])) for key, index in picture_at.items())
    to_image = tuple(
        Row(first[text]["pair_id"], first[text]["image_key"], None, (text,), tuple(pictures_of[text]))
        for text in text_at
    )
    prompts = tuple((text,) for text in text_at)
    return [
        Subset("retrieval", "i2t", "image_to_text", "wrong", dataset.digest, to_text, prompts),
        Subset("retrieval", "t2i", "text_to_image", "wrong", dataset.digest, to_image, (), tuple(paths)),
    ]


def _test_split(dataset: Artifact, most: int) -> list[dict[str, Any]]:
    """Rows of the test split, of at most `most` pictures (the first by pair_id, which is a hash)."""
    with tables.connect({"dataset": dataset.table("dataset")}) as sql:
        table = sql.sql(
            f"""with test as (select image_key, image_uri, pair_id, caption, {", ".join(NEGATIVE_TYPES)}
                              from dataset where split = 'test'),
                     chosen as (select image_key from test group by 1 order by min(pair_id) limit $1)
                select test.* from test semi join chosen using (image_key) order by pair_id""",  # noqa: S608
            params=[most],
        ).to_arrow_table()
    return list(table.to_pylist())


LOADERS = {
    "sugarcrepe": _sugarcrepe,
    "valse": _valse,
    "aro": _aro,
    "sugarcrepe_pp": _sugarcrepe_pp,
    "winoground": _winoground,
    "cola": _cola,
    "zeroshot": _zeroshot,
}
FROM_DATASET = {"retrieval": retrieval, "heldout": heldout}


# -- files -------------------------------------------------------------------------------------------------------------


def _digest(path: Path) -> str:
    return file_sha256(path)[:12]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, OSError) as error:
        raise UserError(
            "evaluate", f"{path} cannot be read: {error}", "the benchmark's complete JSON file", "download it again"
        ) from error


def _items(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows of a JSON list (row id = position) or of a JSON object (row id = key; SugarCrepe's keys have holes)."""
    content = _json(path)
    if not isinstance(content, dict | list) or not content:
        raise UserError("evaluate", f"{path} holds no rows", "a JSON list or object of rows", "download it again")
    for row_id, item in content.items() if isinstance(content, dict) else enumerate(content):
        yield str(row_id), item


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows of a JSON-lines file, by position."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        try:
            yield str(number), json.loads(line)
        except ValueError as error:
            raise UserError(
                "evaluate", f"{path} line {number + 1} is no JSON: {error}", "one row per line", "download it again"
            ) from error


def _field(path: Path, row_id: str, item: Any, name: str, kind: Any = str) -> Any:
    value = item.get(name) if isinstance(item, dict) else None
    if not isinstance(value, kind):
        where = f" row {row_id}" if row_id else ""
        raise UserError(
            "evaluate",
            f"{path.parent.name}/{path.name}{where} has {name} = {value!r}",
            f"a value of type {getattr(kind, '__name__', kind)}",
            "download the file again",
        )
    return value


def _ungrouped(row: Row) -> Row:
    return Row(row.row_id, row.image_key, row.picture, row.texts, row.right, None)


def assert_official(subset: Subset) -> None:
    """Hold a subset against the registry's row count and digest. Raises UserError when they differ."""
    known = registry()[subset.benchmark].get("subsets")
    if known is None:
        return
    facts = known.get(subset.name)
    fix = "restore the official file, or set evaluate.official=false for a set of your own"
    if facts is None:
        raise UserError(
            "evaluate", f"{subset.benchmark} has no subset {subset.name!r}", f"one of {', '.join(known)}", fix
        )
    found = {"valid": len(subset.rows), "sha256": subset.digest}
    for key, value in found.items():
        if facts.get(key, value) != value:
            raise UserError("evaluate", f"{subset.benchmark}/{subset.name} has {key} {value}", f"{facts[key]}", fix)
