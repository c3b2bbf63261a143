"""The built-in world: small images of coloured, textured, sized shapes, drawn from an exact scene graph.

Everything here is a pure function of a key (a string such as ``"train/7/12"``) and a concept set, so scene i never
depends on how many scenes are made, and two sets with different keys never share a scene by construction.

Coordinates: x to the right, y down, both in [0, 1] of the image's side; r is half of a thing's extent in that unit.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

RGB = tuple[int, int, int]
Polygon = list[tuple[float, float]]

COLOURS: dict[str, RGB] = {
    "red": (218, 30, 36),
    "orange": (250, 136, 14),
    "yellow": (250, 220, 20),
    "green": (30, 150, 50),
    "blue": (30, 70, 215),
    "purple": (130, 40, 165),
    "pink": (255, 130, 190),
    "brown": (120, 70, 28),
    "black": (18, 18, 20),
    "white": (250, 250, 250),
    "grey": (136, 136, 138),
    "turquoise": (40, 205, 200),
}
SHAPES = (
    *("circle", "square", "triangle", "star", "heart", "diamond", "ring", "house"),
    *("flower", "bell", "moon", "arrow", "cloud", "tree", "boat", "crown"),
)
TEXTURES = ("plain", "striped", "speckled", "hollow")
SIZES = ("small", "large")
INVERSE = {
    "left": "right",
    "right": "left",
    "above": "below",
    "below": "above",
    "inside": "around",
    "around": "inside",
    "front": "behind",
    "behind": "front",
}
"""The eight relations, each with the relation that holds when its two sides change places."""


@dataclass(frozen=True)
class Concepts:
    """What a set of scenes may contain, and how its captions speak.

    Attributes:
        things: how often a scene holds one, two and three things.
        negation: share of captions that say what is *not* there.
        bare: share of captions that name things by their nouns alone.
        singular: share of captions of several equal things that speak of one of them.
        counted: share of the others that give their number; the rest say only that there are several.
    """

    name: str
    shapes: tuple[str, ...]
    colours: tuple[str, ...]
    textures: tuple[str, ...]
    things: tuple[int, int, int] = (9, 66, 25)
    negation: float = 0.001
    bare: float = 0.4
    singular: float = 0.5
    counted: float = 0.2


WIDE = Concepts("wide", SHAPES, tuple(COLOURS), TEXTURES, things=(45, 40, 15), singular=0.6, counted=0.1)
NARROW = Concepts(
    "narrow",
    shapes=SHAPES[:10],
    colours=("red", "orange", "yellow", "green", "blue", "purple", "black", "white"),
    textures=("plain", "striped", "speckled"),
    bare=0.2,
    singular=0.2,
    counted=0.5,
)
CONCEPTS = {concepts.name: concepts for concepts in (WIDE, NARROW)}


@dataclass(frozen=True)
class Kind:
    """What a thing is, without where it is."""

    shape: str
    colour: str
    texture: str
    size: str


@dataclass(frozen=True)
class Thing:
    """One shape in an image: its kind, centre, half extent r, rotation in degrees and exact paint."""

    shape: str
    colour: str
    texture: str
    size: str
    x: float
    y: float
    r: float
    angle: float
    rgb: RGB

    @property
    def kind(self) -> Kind:
        """What the thing is."""
        return Kind(self.shape, self.colour, self.texture, self.size)

    def is_at(self, place: str, *, clearly: bool = False) -> bool:
        """Whether it is at the left, right, top or bottom of the image; near the middle it is on both sides."""
        along = {"left": self.x, "right": 1 - self.x, "top": self.y, "bottom": 1 - self.y}[place]
        return along < (_CLEARLY_ASIDE if clearly else _NOT_BEYOND)


@dataclass(frozen=True)
class Scene:
    """An image's whole truth: things from back to front, the two ends of the background's gradient, its grain."""

    things: tuple[Thing, ...]
    background: tuple[RGB, RGB]
    grain: int

    def to_json(self) -> dict[str, Any]:
        """The scene as plain JSON types; `from_json` is the exact inverse."""
        return asdict(self)

    @staticmethod
    def from_json(fields: dict[str, Any]) -> Scene:
        """The scene that `to_json` wrote."""
        things = tuple(Thing(**{**thing, "rgb": tuple(thing["rgb"])}) for thing in fields["things"])
        first, second = (tuple(rgb) for rgb in fields["background"])
        return Scene(things, (first, second), fields["grain"])

    def relations(self, a: int, b: int) -> frozenset[str]:
        """Every relation in which thing a stands to thing b, e.g. {"left", "above"}.

        Overlapping things are inside/around or in front/behind and nothing else; apart things are compared by centre,
        where `make_scene` leaves no difference between `_ALIGNED` and `_CLEAR`.
        """
        one, two = self.things[a], self.things[b]
        distance = math.hypot(one.x - two.x, one.y - two.y)
        if distance + one.r <= two.r:
            return frozenset({"inside"})
        if distance + two.r <= one.r:
            return frozenset({"around"})
        if distance < one.r + two.r:
            return frozenset({"front" if a > b else "behind"})
        found = set()
        if abs(one.x - two.x) >= _CLEAR:
            found.add("left" if one.x < two.x else "right")
        if abs(one.y - two.y) >= _CLEAR:
            found.add("above" if one.y < two.y else "below")
        return frozenset(found)


# ---------------------------------------------------------------------------------------------- composing a scene

_ALIGNED, _CLEAR = 0.08, 0.2
_CLEARLY_ASIDE, _NOT_BEYOND = 0.4, 0.55
_RADII = {"small": (0.125, 0.15), "large": (0.19, 0.23)}
_CONTAINERS = ("circle", "square", "diamond", "heart", "ring", "cloud", "house")
_BACKGROUNDS: tuple[RGB, ...] = (
    *((238, 236, 230), (176, 206, 232), (226, 204, 164), (190, 226, 196), (240, 204, 208)),
    *((62, 70, 86), (26, 30, 54), (84, 100, 78), (86, 62, 94), (160, 160, 162)),
)


def make_scene(
    key: str, concepts: Concepts, kinds: Sequence[Kind] | None = None, layout: str | None = None, copies: int = 1
) -> Scene:
    """The scene of `key`: 1-3 things (or the given `kinds`), unambiguous in shape, colour and place.

    layout: "apart", "inside" or "overlap" (the latter two need exactly two things); None draws one.
    copies: how often the first kind appears; only such scenes, for counting, hold two things of one shape and colour.
    """
    rng = random.Random(key)
    if kinds is None:
        counting = copies == 1 and rng.random() < 0.06
        count = 1 if counting else rng.choices((1, 2, 3), concepts.things)[0]
        kinds = draw_kinds(rng, concepts, count)
        copies = rng.choice((2, 3, 4)) if counting else copies
    kinds = list(kinds)
    if copies > 1:
        kinds = [Kind(kinds[0].shape, kinds[0].colour, kinds[0].texture, "small")] * copies + kinds[1:]
    if layout is None:
        layout = rng.choices(("apart", "inside", "overlap"), (76, 12, 12))[0] if len(kinds) == 2 else "apart"
    if layout == "inside":
        kinds, places = _nested(rng, kinds, concepts)
    elif layout == "overlap":
        kinds, places = _overlapping(rng, kinds)
    else:
        places = _apart(rng, kinds)
    things = tuple(
        Thing(kind.shape, kind.colour, kind.texture, kind.size, x, y, r, _angle(rng, kind.shape), _paint(rng, kind))
        for kind, (x, y, r) in zip(kinds, places, strict=True)
    )
    return Scene(things, _background(rng, things), rng.randrange(2**31))


def draw_kinds(rng: random.Random, concepts: Concepts, count: int) -> list[Kind]:
    """`count` kinds that differ in shape or colour, mostly in both."""
    share = rng.random()
    shapes = rng.sample(concepts.shapes, count)
    colours = rng.sample(concepts.colours, count)
    if count > 1 and share < 0.08:
        shapes[1] = shapes[0]
    elif count > 1 and share < 0.16:
        colours[1] = colours[0]
    return [
        Kind(shape, colour, _texture(rng, shape, concepts), rng.choice(SIZES))
        for shape, colour in zip(shapes, colours, strict=True)
    ]


def _texture(rng: random.Random, shape: str, concepts: Concepts) -> str:
    fancy = [texture for texture in concepts.textures[1:] if (shape, texture) != ("ring", "hollow")]
    return "plain" if rng.random() < 0.45 else rng.choice(fancy)


def _apart(rng: random.Random, kinds: Sequence[Kind]) -> list[tuple[float, float, float]]:
    """Rejection sampling of places: no overlap, and each pair is aligned or clearly apart along either axis."""
    for attempt in range(4000):
        # Crowded scenes shrink slowly, within the range of their size word.
        ease = min(attempt / 400, 1.0)
        places: list[tuple[float, float, float]] = []
        for kind in kinds:
            low, high = _RADII[kind.size]
            r = rng.uniform(low, high - ease * (high - low))
            for _ in range(12):
                x, y = rng.uniform(r + 0.02, 0.98 - r), rng.uniform(r + 0.02, 0.98 - r)
                if all(_unambiguous(x, y, r, other) for other in places):
                    places.append((x, y, r))
                    break
            else:
                break
        if len(places) == len(kinds):
            return [(round(x, 4), round(y, 4), round(r, 4)) for x, y, r in places]
    raise AssertionError(f"no room for {kinds}")


def _unambiguous(x: float, y: float, r: float, other: tuple[float, float, float]) -> bool:
    dx, dy = abs(x - other[0]), abs(y - other[1])
    clear_x, clear_y = dx >= _CLEAR + 0.01, dy >= _CLEAR + 0.01
    if not (clear_x or dx <= _ALIGNED) or not (clear_y or dy <= _ALIGNED):
        return False
    return (clear_x or clear_y) and math.hypot(dx, dy) >= r + other[2] + 0.03


def _nested(
    rng: random.Random, kinds: list[Kind], concepts: Concepts
) -> tuple[list[Kind], list[tuple[float, float, float]]]:
    """A large container with a small thing inside it, in two different colours."""
    outer, inner = kinds
    if outer.shape not in _CONTAINERS or outer.shape == inner.shape:
        outer_shape = rng.choice([s for s in _CONTAINERS if s in concepts.shapes and s != inner.shape])
    else:
        outer_shape = outer.shape
    colour = outer.colour
    if colour == inner.colour:
        colour = rng.choice([c for c in concepts.colours if c != inner.colour])
    r = rng.uniform(0.33, 0.38)
    x, y = rng.uniform(r + 0.02, 0.98 - r), rng.uniform(r + 0.02, 0.98 - r)
    # The middles of a heart and a house lie off the centre of their extent.
    down = {"heart": -0.05, "house": 0.1, "cloud": 0.1}.get(outer_shape, 0.0) * r
    inside = (round(x, 4), round(y + down, 4), round(rng.uniform(0.11, 0.13), 4))
    kinds = [Kind(outer_shape, colour, "plain", "large"), Kind(inner.shape, inner.colour, inner.texture, "small")]
    return kinds, [(round(x, 4), round(y, 4), round(r, 4)), inside]


def _overlapping(rng: random.Random, kinds: list[Kind]) -> tuple[list[Kind], list[tuple[float, float, float]]]:
    """A large thing partly hidden by a smaller one in front of it."""
    back, front = kinds
    if back.colour == front.colour:
        return kinds, _apart(rng, kinds)
    kinds = [
        Kind(back.shape, back.colour, "plain" if back.texture == "hollow" else back.texture, "large"),
        Kind(front.shape, front.colour, "plain" if front.texture == "hollow" else front.texture, front.size),
    ]
    r_back, r_front = rng.uniform(0.24, 0.28), rng.uniform(*_RADII[front.size])
    turn = rng.uniform(0, 2 * math.pi)
    reach = max(0.72 * (r_back + r_front), r_back - r_front + 0.04)
    dx, dy = reach * math.cos(turn), reach * math.sin(turn)
    x = rng.uniform(max(r_back, r_front - dx) + 0.01, min(1 - r_back, 1 - r_front - dx) - 0.01)
    y = rng.uniform(max(r_back, r_front - dy) + 0.01, min(1 - r_back, 1 - r_front - dy) - 0.01)
    return kinds, [
        (round(x, 4), round(y, 4), round(r_back, 4)),
        (round(x + dx, 4), round(y + dy, 4), round(r_front, 4)),
    ]


def _angle(rng: random.Random, shape: str) -> float:
    swing = rng.uniform(-9, 9)
    return round(swing + (rng.choice((0, 90, 180, 270)) if shape == "arrow" else 0), 1)


def _paint(rng: random.Random, kind: Kind) -> RGB:
    red, green, blue = (min(255, max(0, channel + rng.randint(-10, 10))) for channel in COLOURS[kind.colour])
    return red, green, blue


def _distance(one: RGB, two: RGB) -> float:
    """A cheap perceptual colour distance (the 'redmean' formula), about 0-765."""
    mean = (one[0] + two[0]) / 2
    red, green, blue = (a - b for a, b in zip(one, two, strict=True))
    return math.sqrt((2 + mean / 256) * red**2 + 4 * green**2 + (2 + (255 - mean) / 256) * blue**2)


def _background(rng: random.Random, things: Sequence[Thing]) -> tuple[RGB, RGB]:
    """A muted colour far from every thing's paint, and a neighbour of it for the gradient."""
    contrast = {tone: min(_distance(tone, thing.rgb) for thing in things) for tone in _BACKGROUNDS}
    good = [tone for tone in _BACKGROUNDS if contrast[tone] >= 200] or [max(_BACKGROUNDS, key=contrast.__getitem__)]
    tone = rng.choice(good)
    shift = rng.choice((-14, 14))
    red, green, blue = (min(255, max(0, channel + shift)) for channel in tone)
    return tone, (red, green, blue)


# ---------------------------------------------------------------------------------------------- drawing a scene

_SUPERSAMPLE = 3
_FULL = [0] * 250 + [255] * 6


def draw(scene: Scene, size: int = 64) -> PillowImage:
    """The image of a scene, RGB, size x size pixels, anti-aliased by drawing three times larger."""
    import numpy as np
    from PIL import Image

    side = size * _SUPERSAMPLE
    first, second = (np.array(rgb, dtype=np.float32) for rgb in scene.background)
    grain = np.random.default_rng(scene.grain)
    ramp = np.linspace(0, 1, 16, dtype=np.float32)
    mix = (ramp[:, None] * grain.random() + ramp[None, :] * grain.random())[..., None]
    coarse = first + (second - first) * mix + grain.normal(0, 4, (16, 16, 1))
    canvas = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((side, side), Image.Resampling.BILINEAR)
    for thing in scene.things:
        patch, mask = _stamp(thing, side)
        corner = round(thing.x * side - patch.width / 2), round(thing.y * side - patch.height / 2)
        canvas.paste(patch, corner, mask)
    return canvas.reduce(_SUPERSAMPLE)


def _stamp(thing: Thing, side: int) -> tuple[PillowImage, PillowImage]:
    """A thing's paint and its mask on a square patch a little larger than the thing."""
    import numpy as np
    from PIL import Image, ImageChops, ImageDraw, ImageFilter

    radius = thing.r * side
    width = 2 * math.ceil(radius * 1.06) + 1
    middle = width / 2
    mask = Image.new("L", (width, width), 0)
    pen = ImageDraw.Draw(mask)
    turn = math.radians(thing.angle)
    cos, sin = math.cos(turn), math.sin(turn)
    for fill, polygon in _OUTLINES[thing.shape]:
        corners = [(middle + radius * (x * cos - y * sin), middle + radius * (x * sin + y * cos)) for x, y in polygon]
        pen.polygon(corners, fill=fill)
    picture = Image.new("RGB", (width, width), thing.rgb)
    if thing.texture in ("striped", "speckled"):
        ramp = np.arange(width, dtype=np.float32) - middle
        step = max(0.5 * radius, side / 64 * 4.4)
        u = (ramp[None, :] * cos + ramp[:, None] * sin) / step
        v = (ramp[:, None] * cos - ramp[None, :] * sin) / step
        if thing.texture == "striped":
            spots = ((u + v) * 0.7071) % 1 < 0.45
        else:
            spots = ((u + (np.floor(v) % 2) * 0.5) % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.085
        picture.paste(_ink(thing.rgb), (0, 0), Image.fromarray(spots.astype(np.uint8) * 255))

    def core(depth: float) -> PillowImage:
        """The part of the mask at least `depth` from its edge."""
        return mask.filter(ImageFilter.BoxBlur(depth)).point(_FULL)

    if thing.texture == "hollow":
        mask = ImageChops.subtract(mask, core(max(radius * 0.13, side / 64 * 1.2)))
    else:
        edge = ImageChops.subtract(mask, core(side / 64 * 0.45))
        picture.paste(tuple(round(channel * 0.6) for channel in thing.rgb), (0, 0), edge)
    return picture, mask


def _ink(rgb: RGB) -> RGB:
    """The second colour of a texture: a light tint on dark paint, a dark shade of the same hue on light paint."""
    luminance = 0.3 * rgb[0] + 0.59 * rgb[1] + 0.11 * rgb[2]
    goal, share = ((255, 255, 255), 0.72) if luminance < 150 else ((0, 0, 0), 0.5)
    red, green, blue = (round(channel + (end - channel) * share) for channel, end in zip(rgb, goal, strict=True))
    return red, green, blue


def _arc(x: float, y: float, r: float, start: float = 0, stop: float = 360, steps: int = 40) -> Polygon:
    angles = [math.radians(start + (stop - start) * i / steps) for i in range(steps + 1)]
    return [(x + r * math.cos(angle), y + r * math.sin(angle)) for angle in angles]


def _spikes(points: int, inner: float) -> Polygon:
    radii = [1.0 if i % 2 == 0 else inner for i in range(2 * points)]
    return [
        (r * math.sin(math.pi * i / points), -r * math.cos(math.pi * i / points) + 0.05) for i, r in enumerate(radii)
    ]


def _heart() -> Polygon:
    angles = [2 * math.pi * i / 60 for i in range(60)]
    return [
        (
            math.sin(t) ** 3 * 1.0,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 15.5 - 0.1,
        )
        for t in angles
    ]


_OUTLINES: dict[str, list[tuple[int, Polygon]]] = {
    "circle": [(255, _arc(0, 0, 0.95))],
    "square": [(255, [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)])],
    "triangle": [(255, [(0, -0.95), (1, 0.8), (-1, 0.8)])],
    "star": [(255, _spikes(5, 0.42))],
    "heart": [(255, _heart())],
    "diamond": [(255, [(0, -1), (0.72, 0), (0, 1), (-0.72, 0)])],
    "ring": [(255, _arc(0, 0, 0.98)), (0, _arc(0, 0, 0.55))],
    "house": [
        (255, [(0, -1), (1, -0.1), (-1, -0.1)]),
        (255, [(-0.72, -0.15), (0.72, -0.15), (0.72, 0.9), (-0.72, 0.9)]),
        (255, [(0.35, -0.95), (0.65, -0.95), (0.65, -0.2), (0.35, -0.2)]),
    ],
    "flower": [
        *((255, _arc(0.6 * math.sin(a * math.pi / 3), -0.6 * math.cos(a * math.pi / 3), 0.4)) for a in range(6)),
        (255, _arc(0, 0, 0.5)),
        (0, _arc(0, 0, 0.24)),
    ],
    "bell": [
        (255, [*_arc(0, -0.25, 0.55, 180, 360), (0.62, 0.35), (0.95, 0.6), (-0.95, 0.6), (-0.62, 0.35)]),
        (255, _arc(0, 0.7, 0.26)),
        (255, _arc(0, -0.82, 0.17)),
    ],
    "moon": [(255, _arc(0, 0, 0.98)), (0, _arc(0.5, -0.08, 0.8))],
    "arrow": [
        (255, [(-1, -0.26), (0.1, -0.26), (0.1, -0.75), (1, 0), (0.1, 0.75), (0.1, 0.26), (-1, 0.26)]),
    ],
    "cloud": [
        *((255, _arc(x, y, r)) for x, y, r in ((-0.52, 0.2, 0.44), (0.52, 0.22, 0.42), (-0.1, -0.2, 0.55))),
        (255, _arc(0.32, -0.12, 0.4)),
        (255, [(-0.52, 0.1), (0.52, 0.1), (0.52, 0.64), (-0.52, 0.64)]),
    ],
    "tree": [
        (255, [(0, -1), (0.6, -0.3), (-0.6, -0.3)]),
        (255, [(0, -0.65), (0.75, 0.15), (-0.75, 0.15)]),
        (255, [(0, -0.3), (0.9, 0.6), (-0.9, 0.6)]),
        (255, [(-0.16, 0.55), (0.16, 0.55), (0.16, 1), (-0.16, 1)]),
    ],
    "boat": [
        (255, [(-1, 0.3), (1, 0.3), (0.62, 0.85), (-0.62, 0.85)]),
        (255, [(-0.06, 0.32), (0.06, 0.32), (0.06, -0.98), (-0.06, -0.98)]),
        (255, [(0.12, -0.95), (0.85, 0.12), (0.12, 0.12)]),
        (255, [(-0.12, -0.7), (-0.12, 0.12), (-0.7, 0.12)]),
    ],
    "crown": [
        (
            255,
            [(-0.95, -0.6), (-0.45, 0.05), (0, -0.85), (0.45, 0.05), (0.95, -0.6), (0.78, 0.75), (-0.78, 0.75)],
        ),
        *((255, _arc(x, y, 0.14)) for x, y in ((-0.92, -0.62), (0, -0.86), (0.92, -0.62))),
    ],
}
"""Each shape as (mask level, polygon) steps in the unit square; level 0 cuts a hole."""
