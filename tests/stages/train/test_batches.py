"""Which pair stands in which batch, with which negatives and which image."""

import csv
import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline import clip, tables
from pipeline.errors import UserError
from pipeline.negative_types import NEGATIVE_TYPES
from pipeline.stage import silent
from stages.train.batches import Batches, _leave_at_once, epoch_negatives, epoch_order, load
from stages.train.pictures import Images
from stages.train.rows import read_rows
from tests.stages.training import small_clip, small_inputs


@given(groups=st.lists(st.integers(0, 12), min_size=1, max_size=60), batch=st.integers(2, 9), seed=st.integers(0, 99))
def test_no_batch_holds_two_captions_of_one_image(groups: list[int], batch: int, seed: int) -> None:
    pictures = np.array(groups)
    order = epoch_order(pictures, batch, seed, epoch=0)
    assert order.shape[1] == batch
    assert len(np.unique(order)) == order.size
    for rows in order:
        assert len(set(pictures[rows])) == batch
    left = np.setdiff1d(np.arange(len(groups)), order)
    assert len(set(pictures[left])) < batch, "another batch could have been filled"
    assert np.array_equal(order, epoch_order(pictures, batch, seed, epoch=0))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    pictures = np.arange(64)
    orders = {epoch_order(pictures, 8, seed, epoch).tobytes() for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_negatives_are_drawn_from_those_there_are() -> None:
    have = np.random.default_rng(0).random((400, 5)) < 0.6
    have[0] = False
    for epoch in range(3):
        chosen = epoch_negatives(have, 4, seed=1, epoch=epoch)
        for row, types in enumerate(chosen):
            kept = types[types >= 0]
            assert len(kept) == len(set(kept)) == min(4, have[row].sum())
            assert have[row, kept].all()
    assert not np.array_equal(epoch_negatives(have, 4, 1, 0), epoch_negatives(have, 4, 1, 1))


def test_a_negative_that_text_gives_away_sits_out_as_often_as_its_chance_says() -> None:
    have, chances = np.ones((20_000, 5), dtype=bool), np.ones((20_000, 5), dtype=np.float32)
    chances[:, 2] = 0.25
    chosen = epoch_negatives(have, 5, 0, 0, chances)
    share = np.bincount(chosen[chosen >= 0], minlength=5) / len(chosen)
    np.testing.assert_allclose(share, [1, 1, 0.25, 1, 1], atol=0.02)
    assert np.array_equal(epoch_negatives(have, 4, 0, 0, np.ones_like(chances)), epoch_negatives(have, 4, 0, 0))


def test_every_type_is_drawn_equally_often() -> None:
    chosen = epoch_negatives(np.ones((20_000, 5), dtype=bool), 4, seed=0, epoch=0)
    share = np.bincount(chosen.ravel(), minlength=5) / len(chosen)
    np.testing.assert_allclose(share, 0.8, atol=0.02)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    folder = tmp_path_factory.mktemp("batches")
    model = clip.load(small_clip(folder / "model"))
    inputs = small_inputs(folder, pictures=9)
    return model, inputs, read_rows(inputs["dataset"], inputs["pairs"], NEGATIVE_TYPES)


def test_a_batch_holds_what_the_dataset_says(made: tuple) -> None:
    model, inputs, rows = made
    table = {tuple(row["caption_tokens"]): row for row in clip_rows(inputs["dataset"].path) if row["split"] == "train"}
    batches = Batches(rows, Images(rows, model), batch=4, negatives=3, epochs=2, seed=5)
    assert len(batches) == 2 * (len(rows) // 4)
    for step in range(len(batches)):
        batch = batches[step]
        texts = [[token for token in text if token] for text in batch.tokens_NL.tolist()]
        negatives = iter(texts[4:])
        for i in range(4):
            row = table[tuple(texts[i])]
            present = [row[f"{kind}_tokens"] for kind in NEGATIVE_TYPES if row[f"{kind}_tokens"]]
            assert batch.have_BK[i].sum() == min(3, len(present))
            for _ in range(int(batch.have_BK[i].sum())):
                assert next(negatives) in present
            picture = Image.open(rows.root / row["image_uri"])
            seen = batch.on("cpu", model).image_BCHW[i]
            assert torch.equal(seen, model.preprocess(picture))
        assert next(negatives, None) is None


def test_a_batch_brings_a_paraphrase_of_each_caption_that_has_one(made: tuple) -> None:
    model, inputs, plain = made
    rows = read_rows(inputs["dataset"], inputs["pairs"], NEGATIVE_TYPES, paraphrases=("rewrites",))
    table = {tuple(row["caption_tokens"]): row for row in clip_rows(inputs["dataset"].path) if row["split"] == "train"}
    batches = Batches(rows, Images(rows, model), batch=4, negatives=3, epochs=2, seed=5)
    without = Batches(plain, Images(plain, model), batch=4, negatives=3, epochs=2, seed=5)
    met = set()
    for step in range(len(batches)):
        batch, other = batches[step], without[step]
        assert torch.equal(batch.type_BK, other.type_BK), "the draw of the negatives stays as it is"
        assert not other.rephrased_B.any() and len(other.tokens_NL) == 4 + other.have_BK.sum()
        texts = [tuple(token for token in text if token) for text in batch.tokens_NL.tolist()]
        further = iter(texts[4:])
        for i in range(4):
            for _ in range(int(batch.have_BK[i].sum())):
                next(further)
            rewrites = table[texts[i]]["paraphrases_tokens"]
            assert bool(batch.rephrased_B[i]) == (rewrites is not None)
            if rewrites:
                paraphrase = next(further)
                assert list(paraphrase) in rewrites
                met.add(paraphrase)
        assert next(further, None) is None
    assert len(met) > len(table) / 3


def clip_rows(folder: Path) -> list[dict]:
    return tables.read(folder).to_pylist()


def same(one: object, two: object) -> bool:
    names = ("image_BCHW", "tokens_NL", "type_BK")
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in names)


@pytest.mark.parametrize("crop", ["center", "random"])
def test_kept_images_and_loader_processes_change_nothing(made: tuple, tmp_path: Path, crop: Any) -> None:
    model, _, rows = made
    reading = Batches(rows, Images(rows, model, crop), batch=4, negatives=4, epochs=2, seed=5)
    pictures = Images(rows, model, crop)
    pictures.keep(tmp_path, 2, silent)
    kept = Batches(rows, pictures, batch=4, negatives=4, epochs=2, seed=5)
    for step, (batch,) in enumerate(load(kept, start=1, workers=1), start=1):  # begun later, by another process
        assert same(batch, reading[step]) and same(batch, kept[step])
        assert same(batch.on("cpu", model), reading[step].on("cpu", model))
    assert step == len(reading) - 1


def test_processes_share_each_batch(made: tuple) -> None:
    model, _, rows = made
    pictures = Images(rows, model)
    whole = Batches(rows, pictures, batch=4, negatives=2, epochs=1, seed=5)
    shares = [Batches(rows, pictures, 4, 2, 1, 5, rank=rank, world=2) for rank in range(2)]
    for step in range(len(whole)):
        expected = whole[step].split(2)
        for share, part in zip(shares, expected, strict=True):
            assert torch.equal(share[step].image_BCHW, part.image_BCHW)
            assert torch.equal(share[step].have_BK, part.have_BK)


def test_epochs_done_counts_fractions(made: tuple) -> None:
    model, _, rows = made
    batches = Batches(rows, Images(rows, model), batch=4, negatives=0, epochs=2, seed=5)
    half = len(batches) // 2
    assert [batches.epochs_done(step) for step in (1, half, 2 * half)] == [1 / half, 1.0, 2.0]


def test_a_batch_larger_than_the_images_is_rejected(made: tuple) -> None:
    model, _, rows = made
    with pytest.raises(UserError, match="batch of 10 needs as many different images, and there are 9"):
        Batches(rows, Images(rows, model), batch=10, negatives=0, epochs=1, seed=0)


def test_a_missing_image_is_named_by_the_loaders_processes_too(tmp_path: Path, made: tuple) -> None:
    inputs = small_inputs(tmp_path, pictures=4)
    rows = read_rows(inputs["dataset"], inputs["pairs"], ())
    (rows.root / rows.uris[2]).unlink()
    pictures = Images(rows, made[0])
    batches = Batches(rows, pictures, batch=4, negatives=0, epochs=1, seed=0)
    with pytest.raises(UserError, match=r"cannot read .*2\.png"):
        list(load(batches, 0, workers=1))
    with pytest.raises(UserError, match=r"cannot read .*2\.png"):
        pictures.keep(tmp_path, 2, silent)


def test_what_other_libraries_do_at_exit_does_not_harm_the_loaders_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("a thread of the parent is not here")

    def status(work: Callable[[int], None]) -> int | None:
        process = multiprocessing.get_context("fork").Process(target=work, args=(0,))
        process.start()
        process.join()
        return process.exitcode

    monkeypatch.setattr(threading, "_threading_atexits", [fail])  # as Prefect registers its own
    assert status(abs) == 1  # type: ignore[arg-type]
    assert status(_leave_at_once) == 0


def test_a_users_images_of_negatives_come_with_their_negative_in_front(world: dict[str, Any], tmp_path: Path) -> None:
    inputs = world["inputs"]
    table = tables.read(inputs["dataset"].path).to_pylist()
    colours = {}
    with (tmp_path / "shown.csv").open("w") as handle:
        sheet = csv.writer(handle)
        sheet.writerow(["pair_id", "type", "image"])
        for number, row in enumerate(table):
            kind = NEGATIVE_TYPES[number % 5]
            colours[row["pair_id"], kind] = number * 9
            Image.new("RGB", (16, 16), (number * 9, 0, 0)).save(tmp_path / f"{number}.png")
            sheet.writerow([row["pair_id"], kind, f"{number}.png"])
    rows = read_rows(inputs["dataset"], inputs["pairs"], NEGATIVE_TYPES, shown=tmp_path / "shown.csv")
    batches = Batches(rows, Images(rows, clip.load(world["model"])), 6, 5, 1, 0)
    of_tokens = {tuple(row["caption_tokens"]): row for row in table if row["split"] == "train"}
    seen = 0
    for step in range(len(batches)):
        batch = batches[step]
        captions = [tuple(token for token in text if token) for text in batch.tokens_NL[:6].tolist()]
        others = iter(batch.other_MCHW)
        for i, caption in enumerate(captions):
            pair = of_tokens[caption]
            kind = next(kind for key, kind in colours if key == pair["pair_id"])
            assert bool(batch.depicted_B[i]) == (pair[kind] is not None)
            if pair[kind] is not None:
                assert NEGATIVE_TYPES[batch.type_BK[i, 0]] == kind
                assert int(next(others)[0, 0, 0]) == colours[pair["pair_id"], kind]
                seen += 1
        assert len(set(batch.type_BK[0][batch.type_BK[0] >= 0].tolist())) == int(batch.have_BK[0].sum())
    assert seen > 5
    (tmp_path / "bad.csv").write_text("pair,image\n1,2\n")
    with pytest.raises(UserError, match="expected a CSV or Parquet file with pair_id, type, image"):
        read_rows(inputs["dataset"], inputs["pairs"], NEGATIVE_TYPES, shown=tmp_path / "bad.csv")


def test_half_of_each_batch_is_similar_to_the_other_half(world: dict[str, Any]) -> None:
    inputs = world["inputs"]
    rows = read_rows(inputs["dataset"], inputs["pairs"], ())
    neighbours = np.array([[(p + 1) % 12, (p + 2) % 12] for p in range(12)])
    batches = Batches(rows, Images(rows, clip.load(world["model"])), 6, 0, 2, 0, neighbours=neighbours)
    similar = 0
    for order in batches.order:
        assert len(set(rows.image_group[order])) == 6, "all images differ"
        for anchor, partner in zip(order[:3], order[3:], strict=True):
            similar += rows.image_file[partner] in neighbours[rows.image_file[anchor]]
    assert similar > 0.8 * batches.order.size / 2
    assert sorted(batches.order[: len(batches) // 2, :3].ravel()) == sorted(range(len(rows)))


def test_random_crops_depend_on_seed_step_and_place_alone(made: tuple) -> None:
    model, _, rows = made
    pictures = Images(rows, model, "random")
    batches = Batches(rows, pictures, 4, 2, 2, seed=5)
    for step in range(len(batches)):
        halves = [Batches(rows, pictures, 4, 2, 2, seed=5, rank=rank, world=2)[step] for rank in (0, 1)]
        batch = batches[step].on("cpu", model)
        for parts in (halves, batches[step].split(2)):
            cut = [part.on("cpu", model).image_BCHW for part in parts]
            torch.testing.assert_close(torch.cat(cut), batch.image_BCHW, atol=1e-5, rtol=1e-5)
        assert batch.image_BCHW.shape == (4, 3, 16, 16)
    others = [Batches(rows, pictures, 4, 2, 2, seed=6)[0], batches[1]]
    assert not any(torch.equal(other.box_B4, batches[0].box_B4) for other in others)
