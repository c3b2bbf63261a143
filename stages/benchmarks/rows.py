"""What benchmarks are made of: one row type for all of them.

Rules, with what `similarities` hold:
    choice          one image, K texts, the right one first; correct when it scores highest (SugarCrepe, VALSE, ARO,
                    VL-CheckList, NegBench, What'sUp, SPEC, CREPE, Half-Truths).
    both            one image, two right texts and a wrong one; correct when both beat it (SugarCrepe++ ITT, Hard
                    Positives).
    texts           no image; the same three: first-second, first-wrong, second-wrong (SugarCrepe++ TOT).
    square          two images, two texts: 0-0, 0-1, 1-0, 1-1; correct when each finds its own (Winoground, COLA,
                    BiVLC, MMVP-VLM, ColorSwap, VisMin, COCO-Counterfactuals).
    image_choice    K images, one text, the right image first; correct when it scores highest (SPEC).
    set             K images, K texts: 0-0, 0-1, ..., K-K; correct when each image finds its own text (What'sUp).
    classify        one image against the subset's classes, each the normalised mean of its prompts.
    image_to_text   one image against all texts of the subset; right when one of its own comes first.
    text_to_image   one text against all images of the subset.
The last three keep the best right option and the ten best wrong ones: top-1, top-5 and R@10 are read from these.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pipeline.clip import read_picture
from pipeline.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

Rule = Literal["choice", "both", "texts", "square", "image_choice", "set", "classify", "image_to_text", "text_to_image"]
Tie = Literal["wrong", "right"]


class Part(NamedTuple):
    """One image of a file that packs many: `read(file, column, row)` decodes it as RGB."""

    read: "Callable[[Path, str, int], Image]"
    column: str
    row: int

    def __repr__(self) -> str:
        """The same in every process: kept embeddings are named by it."""
        return f"{self.read.__name__}({self.column!r}, {self.row})"


@dataclass(frozen=True)
class ImageRef:
    """An image file, or a box of one in pixels (left, top, right, bottom), or a part of a file that packs many."""

    path: Path
    box: tuple[int, int, int, int] | None = None
    part: Part | None = None

    def __call__(self) -> "Image":
        """Decode as RGB. Raises UserError when the file is missing or broken, or holds nothing of the box.

        Of a box that only reaches over the edge the rest is black, as in ARO's own script.
        """
        image = self.part.read(self.path, self.part.column, self.part.row) if self.part else read_picture(self.path)
        if self.box is None:
            return image
        left, top, _, _ = self.box
        if left >= image.width or top >= image.height:
            raise UserError(
                "evaluate",
                f"the box {self.box} lies outside {self.path}, {image.width} x {image.height} pixels",
                "a box (left, top, right, bottom) inside the image",
                "put the image the annotations were made on there",
            )
        return image.crop(self.box)


@dataclass(frozen=True)
class Row:
    """One example of a benchmark.

    Attributes:
        row_id: its name within the subset, as the benchmark gives it.
        image_key: identity of the image; rows that share it are not independent.
        image: what the model sees; None for a row whose query is a text.
        texts: `choice`: the options, the right one first. `text_to_image`: the query.
        right: indices of the right options, into `texts` for `choice`, else into the subset's options.
        group: what a macro rule averages over (relation, attribute pair, class); None = in no group.
        others: further images: `square`, `set`: those of the further texts; `image_choice`: the wrong ones.
    """

    row_id: str
    image_key: str
    image: ImageRef | None
    texts: tuple[str, ...] = ()
    right: tuple[int, ...] = (0,)
    group: str | None = None
    others: tuple[ImageRef, ...] = ()


@dataclass(frozen=True)
class Subset:
    """Rows that are scored alike and averaged together.

    Attributes:
        benchmark: the benchmark ("valse").
        name: subset of it ("existence").
        rule: see the top of this file.
        tie: what equal similarities count as. SugarCrepe, VALSE and VG-* scripts say wrong, ARO's order sets right.
        digest: of the file the rows come from.
        rows: the examples.
        prompts: `classify`: the prompts of each class; `image_to_text`: the single text of each option.
        image_options: `text_to_image`: the options.
        split: which part of a set without an official split this is; empty where there is one.
    """

    benchmark: str
    name: str
    rule: Rule
    tie: Tie
    digest: str
    rows: tuple[Row, ...]
    prompts: tuple[tuple[str, ...], ...] = ()
    image_options: tuple[ImageRef, ...] = ()
    split: str = ""

    @property
    def protocol(self) -> str:
        """Identity of the measurement: scores with different protocols must not be compared."""
        split = f";split={self.split}" if self.split else ""
        return f"{self.rule};tie={self.tie};fp32;{self.digest}{split}"

    @property
    def images(self) -> set[ImageRef]:
        """Every image it uses, options among them."""
        return {one for row in self.rows for one in (row.image, *row.others) if one} | set(self.image_options)
