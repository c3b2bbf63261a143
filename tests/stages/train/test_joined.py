"""Joined batches: two images in one with both captions, the same whoever makes them, and every text is what it says."""

import re
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import clip
from stages.train import crops
from stages.train.batches import Batch, Batches
from stages.train.joined import Joined, exchanged, told
from stages.train.pictures import Images
from stages.train.rows import Rows, read_rows
from tests.stages.training import small_clip, small_inputs

ARCH = "ViT-B-32"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Rows, Any]:
    folder = tmp_path_factory.mktemp("joined")
    model = clip.load(small_clip(folder / "model"))
    inputs = small_inputs(folder, pictures=9)
    rows = read_rows(inputs["dataset"], inputs["pairs"], (), captions=True)
    rows.upright[::2] = True
    return model, rows, Images(rows, model, "random")


def batches(world: tuple[Any, Rows, Any], rank: int = 0, of: int = 1, epochs: int = 2) -> Batches:
    _, rows, images = world
    joined = Joined(rows, images, ARCH, seed=3).batch
    return Batches(rows, images, 4, 0, epochs, seed=3, rank=rank, world=of, joined=joined)


def words(batch: Batch) -> list[str]:
    from open_clip import get_tokenizer

    decode = get_tokenizer(ARCH).decode
    return [re.sub("<.*?>", "", decode([one for one in row if one])).strip() for row in batch.tokens_NL.tolist()]


def test_joined_and_single_batches_take_turns_in_each_epoch(world: tuple[Any, Rows, Any]) -> None:
    made = batches(world)
    for step in range(len(made)):
        batch = made[step]
        is_joined = (step - int(np.searchsorted(made.epoch, made.epoch[step]))) % 2 == 0
        assert (batch.beside_BCHW is not None) == is_joined
        assert batch.more_BX.shape[1] == (5 if is_joined else 1)
        assert len(batch.tokens_NL) == 4 + int(batch.more_BX.sum())


def test_every_text_of_a_joined_batch_is_of_both_images(world: tuple[Any, Rows, Any]) -> None:
    _, rows, _ = world
    captions = [str(caption).lower() for caption in rows.captions.to_pylist()]
    image_of = {caption: int(group) for caption, group in zip(captions, rows.image_group, strict=True)}
    made = batches(world)
    batch = made[0]
    texts = [text.replace(" .", ".") for text in words(batch)]
    further = iter(texts[4:])
    for place, text in enumerate(texts[:4]):
        row = made.order[0][place]
        own = text.removesuffix(".").split(". ")
        assert own[0] == captions[row] and image_of[own[1]] != image_of[own[0]]
        false = next(further)
        assert sorted(re.findall(r"\w+", false)) == sorted(re.findall(r"\w+", text)) and false not in (
            text,
            told(*own[::-1]),
        )
        assert next(further) == told(*own[::-1])
        for _ in range(2):
            also = next(further).removesuffix(".").split(". ")
            assert {image_of[one] for one in also} == {image_of[one] for one in own}
            assert not set(also) & set(own), "each image has another caption"
    assert next(further, None) is None


def test_processes_draw_what_one_would(world: tuple[Any, Rows, Any]) -> None:
    whole, halves = batches(world)[0], [batches(world, rank, 2)[0] for rank in range(2)]
    for name in ("image_BCHW", "beside_BCHW", "upright_B", "type_BK"):
        assert torch.equal(torch.cat([getattr(half, name) for half in halves]), getattr(whole, name)), name
    assert words(whole)[:4] == [text for half in halves for text in words(half)[:2]]
    assert torch.equal(batches(world)[0].tokens_NL, whole.tokens_NL), "and again the same"


def test_partners_are_of_one_orientation_and_stand_in_either_order(world: tuple[Any, Rows, Any]) -> None:
    model, rows, images = world
    batch = batches(world, epochs=1)[0]
    by_bytes = {images[number].numpy().tobytes(): number for number in range(len(images))}
    first, second = (
        [by_bytes[np.ascontiguousarray(one.numpy()).tobytes()] for one in stacked]
        for stacked in (batch.image_BCHW, batch.beside_BCHW)
    )
    assert rows.upright[first].tolist() == rows.upright[second].tolist() == batch.upright_B.tolist()
    mine = rows.image_file[batches(world, epochs=1).order[0]].tolist()
    assert all(one in pair for one, *pair in zip(mine, first, second, strict=True)) and first != mine != second
    seen = batch.on("cpu", model)
    assert seen.image_BCHW.shape == (4, 3, 16, 16) and seen.beside_BCHW is None


def test_halves_hold_the_whole_of_each_image() -> None:
    one, other = (torch.full((2, 3, 20, 20), value, dtype=torch.uint8) for value in (10, 200))
    one[:, :, :, 10:] = 90  # left and right
    joined = crops.joined(one, other, torch.tensor([True, False]), (17, 17)).round()
    beside, above = joined[0, 0], joined[1, 0]
    assert joined.shape == (2, 3, 17, 17)
    assert beside[:, 0].unique().tolist() == [10] and beside[:, 7].unique().tolist() == [90]
    assert beside[:, 8:].unique().tolist() == [200]
    assert above[0, 0] == 10 and above[7, 16] == 90 and above[8:].unique().tolist() == [200]


def test_words_of_one_part_of_speech_change_places_between_the_captions() -> None:
    one, two = "a red car stands on grass", "a small dog runs"
    pairs = {("red", "small"), ("car", "dog"), ("grass", "dog"), ("stands", "runs")}
    seen = set()
    for seed in range(60):
        false = exchanged(one, two, np.random.default_rng(seed))
        assert false is not None
        mine, theirs = sorted(
            false.removesuffix(".").split(". "), key=lambda text: "stands on" not in text and "runs on" not in text
        )
        changed = [set(new.split()) - set(old.split()) for new, old in ((mine, one), (theirs, two))]
        seen.add((changed[1].pop(), changed[0].pop()))
    assert seen <= pairs and len(seen) > 2


def test_captions_without_a_word_of_their_own_have_no_false_text() -> None:
    draw = np.random.default_rng(0)
    assert exchanged("a dog", "a dog", draw) is None
    assert exchanged("dogs", "run", draw) is not None


def test_a_caption_is_a_sentence() -> None:
    assert told("A dog. ", "two cats") == "A dog. two cats."
