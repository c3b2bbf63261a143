"""The built-in world as files: training pairs, and evaluation sets in the real benchmarks' own formats.

Training scenes have keys "train/...", evaluation scenes "test/...", so no image is shared. SugarCrepe's and ARO's
stand-ins speak of the narrow concepts, as the real ones do of everyday photos; VALSE's of the wide ones.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import tables
from pipeline.crew import Crew, cores
from pipeline.stage import Progress, silent
from stages.text.word_order import PERTURBATIONS, perturb
from stages.world.language import (
    CATEGORY,
    RELATION_WORDS,
    WORDINGS,
    Facts,
    Phrase,
    captions,
    content_words,
    describe,
    holds,
    parse,
    rewrites,
    write,
)
from stages.world.scenes import NARROW, SHAPES, SIZES, WIDE, Concepts, Kind, Scene, draw, make_scene

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

Row = dict[str, Any]


@dataclass(frozen=True)
class ScenePair:
    """One image of the training set with its captions and its truth."""

    key: str
    path: Path
    captions: tuple[str, ...]
    scene: Scene


def write_pairs(
    folder: Path,
    n: int,
    seed: int,
    concepts: Concepts,
    captions_per_image: int = 2,
    size: int = 64,
    progress: Progress = silent,
    wide_share: float = 0.0,
) -> Iterator[ScenePair]:
    """Draw n images into folder/images and yield each with its captions, in order.

    An image already there is not drawn again, so a killed call can simply be repeated; image i depends on the seed,
    the concept set, `wide_share` (the share of images drawn with the wide concepts instead) and i alone.
    """
    make = partial(_pair, folder, seed, concepts, captions_per_image, size, wide_share)
    with Crew("ingest", cores()) as crew:
        for begin in range(0, n, _AHEAD):
            numbers = range(begin, min(begin + _AHEAD, n))
            slices = [numbers[i : i + _SLICE] for i in range(0, len(numbers), _SLICE)]
            for made in chain.from_iterable(crew.map(partial(_each, make), slices)):
                yield made
                begin += 1
                progress("images", begin, n)


_SLICE, _AHEAD = 250, 4000
"""Images that a process draws at a time, and that are drawn before they are taken."""


def _each(make: Callable[[int], ScenePair], numbers: Sequence[int]) -> Iterable[ScenePair]:
    return [make(i) for i in numbers]


def _pair(
    folder: Path, seed: int, concepts: Concepts, captions_per_image: int, size: int, wide_share: float, i: int
) -> ScenePair:
    drawn = WIDE if random.Random(f"share/{seed}/{i}").random() < wide_share else concepts
    key = f"train/{drawn.name}/{seed}/{i}"
    scene = make_scene(key, drawn)
    path = folder / "images" / f"{drawn.name}-{seed}-{i:07d}.png"
    _paint(scene, size, path)
    said = captions(scene, drawn, f"{key}/captions", captions_per_image)
    return ScenePair(f"scenes:{drawn.name}:{path.stem}", path, tuple(said), scene)


def write_benchmarks(folder: Path, n: int = 200, seed: int = 0, size: int = 64, progress: Progress = silent) -> None:
    """Write sugarcrepe/, valse/, aro/ and zeroshot/ into the folder; the same arguments give the same bytes.

    Images already there are not drawn again, so a killed call can be repeated; other arguments need another folder.

    n: rows per subset (VG-Relation and VG-Attribution keep at least the 25 rows per group that their macro rules ask
    for; zero-shot has n / 5 images per shape and about 2 n per set of objects). Every negative that is a sentence of
    the language is false of its scene.
    """
    steps: list[Callable[[Path, int, int, int], None]] = [_write_sugarcrepe, _write_valse, _write_aro, _write_zeroshot]
    for done, step in enumerate(steps):
        progress("benchmarks", done, len(steps))
        step(folder, n, seed, size)
    progress("benchmarks", len(steps), len(steps))


def _paint(scene: Scene, size: int, path: Path) -> None:
    """Draw an image that is not there yet."""
    if not path.exists():
        _save(draw(scene, size), path)


def _save(image: PillowImage, path: Path) -> None:
    with tables.replacing(path) as unfinished:
        image.save(unfinished, format="PNG", compress_level=3)


def _save_json(content: object, path: Path) -> None:
    tables.write_text(path, json.dumps(content, indent=1) + "\n")


def _false(candidates: Sequence[Facts], scene: Scene, rng: random.Random) -> str | None:
    """A random one of the candidates that is a false sentence about the scene."""
    for facts in rng.sample(candidates, len(candidates)):
        # Judged by its text, as a reader would: what is scored is the string.
        read = parse(write(facts))
        if read is not None and not holds(read, scene):
            return write(facts)
    return None


# ---------------------------------------------------------------------------------------------- SugarCrepe


def _relations_replaced(facts: Facts) -> list[Facts]:
    made = []
    for place, words in enumerate(facts.relations):
        for other, relation in RELATION_WORDS.items():
            if relation != RELATION_WORDS[words]:
                relations = tuple(other if k == place else old for k, old in enumerate(facts.relations))
                made.append(replace(facts, relations=relations))
    return made


_WITH_ONE_MORE = {
    "{n}": "{n} and {n}",
    "there is {n}": "there is {n} and {n}",
    "{n} and {n}": "{n}, {n} and {n}",
    "there is {n} and {n}": "there is {n}, {n} and {n}",
    "{n} is {r} {n}": "{n} is {r} {n}, and there is {n}",
}
"""Wordings that can name one more thing, and the wording that does."""


def _object_added(facts: Facts) -> list[Facts]:
    longer = _WITH_ONE_MORE.get(facts.wording.text)
    if longer is None:
        return []
    wording = next(w for w in WORDINGS if (w.text, w.number) == (longer, facts.wording.number))
    described = [(), *((colour,) for colour in NARROW.colours), *product(SIZES, NARROW.colours)]
    return [
        replace(facts, wording=wording, phrases=(*facts.phrases, Phrase("a", adjectives, shape)))
        for shape in NARROW.shapes
        for adjectives in described
    ]


def _attribute_added(facts: Facts) -> list[Facts]:
    made = []
    for i, phrase in enumerate(facts.phrases):
        taken = {CATEGORY[word] for word in facts.adjectives(i)}
        for word in (*SIZES, *NARROW.textures, *NARROW.colours):
            if CATEGORY[word] not in taken:
                longer = replace(phrase, adjectives=(word, *phrase.adjectives))
                phrases = tuple(longer if k == i else old for k, old in enumerate(facts.phrases))
                made.append(replace(facts, phrases=phrases))
    return made


_SUGARCREPE: dict[str, Callable[[Facts], list[Facts]]] = {
    "add_att": _attribute_added,
    "add_obj": _object_added,
    "replace_att": lambda facts: rewrites(facts, "replace_adjectives", NARROW),
    "replace_obj": lambda facts: rewrites(facts, "replace_nouns", NARROW),
    "replace_rel": _relations_replaced,
    "swap_att": lambda facts: rewrites(facts, "swap_adjectives", NARROW),
    "swap_obj": lambda facts: rewrites(facts, "swap_nouns", NARROW),
}


def _without_last(facts: Facts) -> Facts | None:
    """The sentence that names all things but the last; None where the language has no such wording."""
    shorter = next((less for less, more in _WITH_ONE_MORE.items() if more == facts.wording.text), None)
    if shorter is None:
        return None
    wording = next(w for w in WORDINGS if (w.text, w.number) == (shorter, facts.wording.number))
    return replace(facts, wording=wording, phrases=facts.phrases[:-1])


def _in_other_words(facts: Facts, rng: random.Random) -> Facts:
    """The same or less of the same, in a wording with the same slots."""
    same = [
        wording
        for wording in WORDINGS
        if wording.weight
        and (wording.number, wording.size) == (facts.wording.number, facts.wording.size)
        and (wording.links, wording.predicates) == (facts.wording.links, facts.wording.predicates)
        and wording.located == facts.wording.located
    ]
    phrases = [
        replace(phrase, adjectives=tuple(word for word in phrase.adjectives if rng.random() < 0.6))
        for phrase in facts.phrases
    ]
    return replace(facts, wording=rng.choice(same), phrases=tuple(phrases))


def _added(subset: str, facts: Facts, longer: bool, scene: Scene, rng: random.Random) -> str | None:
    """A false sentence that says one thing more than a true one, with more words than `facts` or, not longer, at most
    as many: were it always longer, whoever counts words would need no image."""
    for _ in range(20):
        if subset == "add_att":
            told: Facts | None = _in_other_words(facts, rng)
        else:
            told = facts if longer else _without_last(facts)
        if told is None:
            return None
        negative = _false(_SUGARCREPE[subset](told), scene, rng)
        if negative is not None and (len(negative.split()) > len(write(facts).split())) == longer:
            return negative
    return None


def _write_sugarcrepe(folder: Path, n: int, seed: int, size: int) -> None:
    """Seven dicts of rows by string key; all subsets draw on one pool of images, as the real ones do on COCO's."""
    used: dict[str, Scene] = {}
    for subset, negatives in _SUGARCREPE.items():
        rng = random.Random(f"test/sugarcrepe/{seed}/{subset}")
        rows: dict[str, Row] = {}
        for i in _endless():
            if len(rows) == n:
                break
            scene = make_scene(f"test/sugarcrepe/{seed}/{i % (2 * n)}", NARROW)
            facts = describe(scene, NARROW, rng)
            if facts is None or not holds(facts, scene):
                continue
            if subset.startswith("add"):
                negative = _added(subset, facts, len(rows) % 2 == 0, scene, rng)
            else:
                negative = _false(negatives(facts), scene, rng)
            if negative is not None:
                name = f"{i % (2 * n):012d}.png"
                used[name] = scene
                rows[str(len(rows))] = {"filename": name, "caption": write(facts), "negative_caption": negative}
        _save_json(rows, folder / "sugarcrepe" / f"{subset}.json")
    for name, scene in used.items():
        _paint(scene, size, folder / "sugarcrepe" / "images" / name)


def _endless() -> Iterator[int]:
    i = 0
    while True:
        yield i
        i += 1


# ---------------------------------------------------------------------------------------------- VALSE

_COUNTS = ("no", "one", "two", "three", "four")


def _sentence(text: str, *phrases: Phrase) -> str:
    return write(Facts(next(w for w in WORDINGS if w.text == text), phrases))


def _existence(key: str, rng: random.Random) -> tuple[Scene, Row] | None:
    scene = make_scene(key, WIDE)
    thing = rng.choice(scene.things)
    present = rng.random() < 0.5
    colour = thing.colour if present else rng.choice(WIDE.colours)
    shape = thing.shape if present else rng.choice(WIDE.shapes)
    some = _sentence("there is {n} in the picture", Phrase("a", (colour,), shape))
    none = _sentence("there is {n} in the picture", Phrase("no", (colour,), shape))
    caption, foil = (some, none) if present else (none, some)
    return scene, {"caption": caption, "foil": foil, "answer": int(present), "classes": int(present)} | {
        "classes_foil": int(not present)
    }


def _counting(key: str, rng: random.Random) -> tuple[Scene, Row] | None:
    count = rng.randint(1, 4)
    other = rng.choice([number for number in range(1, 5) if number != count])
    scene = make_scene(key, WIDE, [_kind(rng, WIDE)], copies=count)
    thing = scene.things[0]

    def say(number: int) -> str:
        phrase = Phrase(f"exactly {_COUNTS[number]}", (thing.colour,), thing.shape, plural=number > 1)
        return _sentence("there are {n}" if number > 1 else "there is {n}", phrase)

    return scene, {"caption": say(count), "foil": say(other), "answer": count, "classes": count, "classes_foil": other}


def _plurals(key: str, rng: random.Random) -> tuple[Scene, Row] | None:
    many = rng.random() < 0.5
    scene = make_scene(key, WIDE, [_kind(rng, WIDE)], copies=rng.randint(2, 4) if many else 1)
    thing = scene.things[0]
    single = _sentence("this picture shows {n}", Phrase("exactly one", (thing.colour,), thing.shape))
    plural = _sentence("this picture shows {n}", Phrase("several", (thing.colour,), thing.shape, plural=True))
    nouns = (thing.shape, f"{thing.shape}s")
    caption, foil = (plural, single) if many else (single, plural)
    first, second = reversed(nouns) if many else nouns
    return scene, {"caption": caption, "foil": foil, "classes": first, "classes_foil": second}


def _edited(change: Callable[[Facts], list[Facts]]) -> Callable[[str, random.Random], tuple[Scene, Row] | None]:
    """Rows whose foil is a false edit of a true caption; `classes` names the words that differ."""

    def make(key: str, rng: random.Random) -> tuple[Scene, Row] | None:
        scene = make_scene(key, WIDE)
        facts = describe(scene, WIDE, rng)
        if facts is None or not holds(facts, scene):
            return None
        foil = _false(change(facts), scene, rng)
        if foil is None:
            return None
        caption = write(facts)
        lost, gained = content_words(caption) - content_words(foil), content_words(foil) - content_words(caption)
        return scene, {"caption": caption, "foil": foil, "classes": " ".join(lost), "classes_foil": " ".join(gained)}

    return make


def _sides_exchanged(facts: Facts) -> list[Facts]:
    """Each thing in the other's place, with all that is said of it."""
    if not facts.relations or len(facts.phrases) != 2:
        return []
    return [replace(facts, phrases=facts.phrases[::-1])]


_VALSE: dict[str, tuple[str, Callable[[str, random.Random], tuple[Scene, Row] | None]]] = {
    "actant-swap": ("actions", _edited(_sides_exchanged)),
    "counting-small-quant": ("counting", _counting),
    "existence": ("existence", _existence),
    "foil-it": ("noun phrases", _edited(lambda facts: rewrites(facts, "replace_nouns", WIDE))),
    "plurals": ("plurals", _plurals),
    "relations": ("relations", _edited(_relations_replaced)),
}


def _write_valse(folder: Path, n: int, seed: int, size: int) -> None:
    """Dicts of rows by id; after every twenty valid rows comes one that the annotators' votes rule out."""
    for subset, (phenomenon, make) in _VALSE.items():
        rng = random.Random(f"test/valse/{seed}/{subset}")
        rows: dict[str, Row] = {}
        for i in _endless():
            if len(rows) == n + n // 20:
                break
            made = make(f"test/valse/{seed}/{subset}/{i}", rng)
            if made is None:
                continue
            scene, row = made
            caption, foil = parse(row["caption"]), parse(row["foil"])
            if caption is None or foil is None or not holds(caption, scene) or holds(foil, scene):
                continue
            valid = len(rows) % 21 != 20
            name = f"{subset}_{i:06d}.png"
            rows[f"{subset}_scenes_{i}"] = {
                "dataset": "scenes",
                "original_split": "test",
                "dataset_idx": str(i),
                "linguistic_phenomena": phenomenon,
                "image_file": name,
                **row,
                "mturk": {"foil": 0, "caption": 3, "other": 0} if valid else {"foil": 1, "caption": 1, "other": 1},
            }
            _paint(scene, size, folder / "valse" / "images" / name)
        _save_json(rows, folder / "valse" / f"{subset}.json")


def _kind(rng: random.Random, concepts: Concepts) -> Kind:
    return Kind(rng.choice(concepts.shapes), rng.choice(concepts.colours), "plain", rng.choice(SIZES))


# ---------------------------------------------------------------------------------------------- ARO

_ATTRIBUTE_PAIRS = (
    *(("red", "blue"), ("green", "yellow"), ("black", "white"), ("orange", "purple"), ("blue", "green")),
    *(("small", "large"), ("striped", "speckled"), ("plain", "striped")),
)
_RELATION_NAMES = {
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
    "inside": "inside",
    "around": "around",
    "front": "in front of",
    "behind": "behind",
}


def _write_aro(folder: Path, n: int, seed: int, size: int) -> None:
    root = folder / "aro"
    relation, attribution = _relation_rows(root, n, seed, size), _attribution_rows(root, n, seed, size)
    _save_json(relation, root / "visual_genome_relation.json")
    _save_json(attribution, root / "visual_genome_attribution.json")
    _save_json(_order_rows(root, n, seed, size), root / "coco_order.json")


def _boxed(root: Path, name: str, scene: Scene, key: str, size: int) -> Row:
    """Save the scene beside another one and give the box that cuts it out, as an ARO row does."""
    from PIL import Image

    right = random.Random(key).random() < 0.5
    path = root / "images" / name
    if not path.exists():
        wide = Image.new("RGB", (2 * size, size))
        wide.paste(draw(scene, size), (size if right else 0, 0))
        wide.paste(draw(make_scene(f"{key}/beside", NARROW), size), (0 if right else size, 0))
        _save(wide, path)
    return {"bbox_x": size if right else 0, "bbox_y": 0, "bbox_w": size, "bbox_h": size}


def _relation_rows(root: Path, n: int, seed: int, size: int) -> list[Row]:
    """At least 25 rows for each of the eight relations; the false caption exchanges its two sides."""
    rows: list[Row] = []
    for relation, words in _RELATION_NAMES.items():
        made = 0
        for i in _endless():
            if made == max(25, n // len(_RELATION_NAMES)):
                break
            key = f"test/aro/{seed}/relation/{relation}/{i}"
            layout = {"inside": "inside", "around": "inside", "front": "overlap", "behind": "overlap"}.get(relation)
            kinds = [_kind(random.Random(f"{key}/{side}"), NARROW) for side in "ab"]
            if kinds[0].shape == kinds[1].shape or kinds[0].colour == kinds[1].colour:
                continue
            scene = make_scene(key, NARROW, kinds, layout or "apart")
            pair = next((p for p in ((0, 1), (1, 0)) if relation in scene.relations(*p)), None)
            if pair is None:
                continue
            subject, target = (scene.things[k].shape for k in pair)
            rows.append(
                {
                    "image_id": len(rows),
                    "image_path": f"relation_{len(rows):05d}.png",
                    "true_caption": f"the {subject} is {words} the {target}",
                    "false_caption": f"the {target} is {words} the {subject}",
                    **_boxed(root, f"relation_{len(rows):05d}.png", scene, key, size),
                    "relation_name": words,
                }
            )
            made += 1
    return rows


def _attribution_rows(root: Path, n: int, seed: int, size: int) -> list[Row]:
    """At least 25 rows for each of eight attribute pairs; the false caption exchanges the two attributes."""
    rows: list[Row] = []
    for pair in _ATTRIBUTE_PAIRS:
        for i in range(max(25, n // len(_ATTRIBUTE_PAIRS))):
            key = f"test/aro/{seed}/attribution/{'_'.join(pair)}/{i}"
            rng = random.Random(f"{key}/kinds")
            shapes = rng.sample(NARROW.shapes, 2)
            kinds = [
                replace(_kind(rng, NARROW), shape=shape, **{CATEGORY[word]: word})
                for shape, word in zip(shapes, pair, strict=True)
            ]
            scene = make_scene(key, NARROW, kinds, "apart")
            rows.append(
                {
                    "image_id": len(rows),
                    "image_path": f"attribution_{len(rows):05d}.png",
                    "true_caption": f"the {pair[0]} {shapes[0]} and the {pair[1]} {shapes[1]}",
                    "false_caption": f"the {pair[1]} {shapes[0]} and the {pair[0]} {shapes[1]}",
                    **_boxed(root, f"attribution_{len(rows):05d}.png", scene, key, size),
                    "attributes": list(pair),
                }
            )
    return rows


def _order_rows(root: Path, n: int, seed: int, size: int) -> list[Row]:
    """The true caption and ARO's four word-order foils, frozen; no foil equals the caption or is a true sentence."""
    rows: list[Row] = []
    for i in _endless():
        if len(rows) == n:
            break
        key = f"test/aro/{seed}/order/{i}"
        scene = make_scene(key, NARROW)
        caption = captions(scene, NARROW, f"{key}/caption", 1)[0].lower().removesuffix(".").replace(",", "")
        rng = random.Random(f"{key}/foils")
        foils = [_reordered(caption, kind, scene, rng) for kind in PERTURBATIONS]
        if all(foils):
            name = f"order_{len(rows):05d}.png"
            rows.append({"image_path": name, "caption_options": [caption, *foils]})
            _paint(scene, size, root / "images" / name)
    return rows


def _reordered(caption: str, kind: str, scene: Scene, rng: random.Random) -> str | None:
    words = caption.split()
    content = [word in CATEGORY or word in SHAPES or word.removesuffix("s") in SHAPES for word in words]
    for _ in range(20):
        foil = " ".join(perturb(words, content, kind, rng))
        facts = parse(foil)
        if foil != caption and (facts is None or not holds(facts, scene)):
            return foil
    return None


# ---------------------------------------------------------------------------------------------- zero-shot folders

_TEMPLATES = ["a picture of a {}.", "there is a {} in the picture.", "this picture shows a {}.", "a {}."]

RARE = Concepts(
    "rare",
    tuple(shape for shape in WIDE.shapes if shape not in NARROW.shapes),
    tuple(colour for colour in WIDE.colours if colour not in NARROW.colours),
    WIDE.textures,
)
_SMALLER, _TURNED = 0.7, 15.0
"""The least share of its extent that a thing keeps, and the most degrees it is turned by."""


def _write_zeroshot(folder: Path, n: int, seed: int, size: int) -> None:
    """zeroshot/<set>/classes.json beside zeroshot/<set>/images/<class>/*.png, torchvision's ImageFolder layout.

    The "rare" sets hold the shapes and colours that the narrow concepts lack: what fine-tuning may forget. A class is a
    shape, or a shape in a colour, all of them: 80 and 24.
    """
    for name, concepts, others in (("common", NARROW, RARE), ("rare", RARE, NARROW)):
        shapes: dict[str, tuple[str, str | None]] = {shape: (shape, None) for shape in concepts.shapes}
        objects: dict[str, tuple[str, str | None]] = {
            f"{colour} {shape}": (shape, colour) for shape in concepts.shapes for colour in concepts.colours
        }
        for kind, classes, pictures in (("shapes", shapes, n // 5), ("objects", objects, 2 * n // len(objects))):
            root = folder / "zeroshot" / f"{kind}_{name}"
            # ImageFolder numbers classes by sorted folder name; the list must say the same.
            for label in sorted(classes):
                for i in range(max(1, pictures)):
                    key = f"test/zeroshot/{seed}/{kind}/{label}/{i}"
                    scene = zeroshot_scene(key, *classes[label], concepts, others)
                    _paint(scene, size, root / "images" / label / f"{i:04d}.png")
            _save_json(
                {"classnames": sorted(classes), "templates": _TEMPLATES, "metric": "top1"}, root / "classes.json"
            )


def zeroshot_scene(key: str, shape: str, colour: str | None, concepts: Concepts, others: Concepts) -> Scene:
    """One thing of the class among one or two bystanders whose shapes and colours no class of its set has: exactly one
    class is in the image, and which word belongs to which thing does not matter. Recognition alone is asked.

    The thing is smaller and turned further than in training, in any texture, so that the starting CLIP has room
    to lose: it is right on 72 to 75 %, on 99.7 where the thing stands alone as in training.
    """
    rng = random.Random(f"{key}/kind")
    texture = rng.choice([t for t in WIDE.textures if (shape, t) != ("ring", "hollow")])
    thing = Kind(shape, colour or rng.choice(concepts.colours), texture, rng.choice(SIZES))
    bystanders = [replace(_kind(rng, others), shape=other) for other in rng.sample(others.shapes, rng.choice((1, 2)))]
    scene = make_scene(key, concepts, [thing, *bystanders], "apart")
    drawn, *beside = scene.things
    angle = drawn.angle + rng.uniform(-_TURNED, _TURNED)
    return replace(scene, things=(replace(drawn, r=drawn.r * rng.uniform(_SMALLER, 1), angle=angle), *beside))
