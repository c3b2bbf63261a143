"""Checkpoints, the epoch that is kept, memory, and the settings that change how a model is trained."""

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file

from pipeline import clip, tables
from pipeline.clip import tuning
from pipeline.errors import UserError
from pipeline.schema import DATASET, NEGATIVE_TYPES
from stages.train import checkpoints, memory, mining
from stages.train.batches import Batches, Pictures, read_rows
from stages.train.objective import Objective
from stages.train.stage import Config, Loss
from tests.stages.train.test_stage import STEPS, made
from tests.stages.training import small_clip, small_inputs

RIVALS = {
    "negclip": {"objective": Loss(distill=0, igc=0, tgc=0), "negatives_per_caption": 1, "similar_images": 3},
    "ce_clip": {"objective": Loss(distill=0, igc=0, tgc=0, rank=0.2, intra=0.3)},
    "fsc_clip": {"objective": Loss(base=0, distill=0, igc=0, tgc=0, clip=1, focal=0.5)},
    "con_clip": {"objective": Loss(base=0, distill=0, igc=0, tgc=0, distractor=1), "negative_images": "mined"},
    "triplet_clip": {"objective": Loss(distill=0, igc=0, tgc=0, triplet=1), "negative_images": "mined"},
    "gift": {"objective": Loss(distill=0, clip=0.5, contrast_distill=1, fisher=1, ema=1)},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("training")
    return {"folder": folder, "model": small_clip(folder / "model"), "inputs": small_inputs(folder, pictures=12)}


class StoppedError(Exception):
    pass


def stop_at(step: int) -> Any:
    def progress(what: str, done: int, total: int) -> None:
        if what.startswith("steps") and done == step:
            raise StoppedError

    return progress


@pytest.mark.parametrize("name", RIVALS)
def test_every_rival_learns_and_resumes_to_the_same_bits(world: dict[str, Any], tmp_path: Path, name: str) -> None:
    # The second checkpoint lies inside an epoch, so that what changes within one (thresholds) must be in it.
    settings = RIVALS[name] | {"checkpoint_steps": 3, "seed": 5}
    whole = made(world, tmp_path / "whole", **settings)
    task = next(term for term in ("base_loss", "clip_loss", "distractor_loss") if term in whole["steps"])
    assert whole["steps"][task][-1] < whole["steps"][task][0]
    with pytest.raises(StoppedError):
        made(world, tmp_path / "cut", stop_at(8), **settings)
    resumed = made(world, tmp_path / "cut", **settings)
    for part in ("student", "teacher", "steps"):
        assert resumed[part] == whole[part], part


# -- checkpoints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(world: dict[str, Any], tmp_path: Path, damage: str) -> None:
    whole = made(world, tmp_path / "whole")
    with pytest.raises(StoppedError):
        made(world, tmp_path / "cut", stop_at(8))
    newest, before = checkpoints.listed(tmp_path / "cut" / ".work", "checkpoint")
    assert (newest.name[:19], before.name[:19]) == ("checkpoint-00000006", "checkpoint-00000003")
    content = newest.read_bytes()
    middle = len(content) // 2
    newest.write_bytes(
        {
            "truncated": content[:middle],
            "altered": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "empty": b"",
        }[damage]
    )
    seen: list[int] = []
    resumed = made(world, tmp_path / "cut", lambda what, done, _: seen.append(done) if "loss" in what else None)
    assert seen[0] == 4, "from the checkpoint before"
    assert (resumed["student"], resumed["steps"]) == (whole["student"], whole["steps"])


@pytest.mark.skipif(sys.platform != "linux", reason="writes to /dev/full")
def test_a_full_disk_is_an_error_of_the_disk(tmp_path: Path, world: dict[str, Any]) -> None:
    for name in ("checkpoint.tmp", "weights"):
        (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        checkpoints.save({"weights": torch.zeros(1000)}, tmp_path, "checkpoint", 1, keep=2)
    with pytest.raises(OSError, match="No space left on device"):
        clip.save_weights(clip.load(str(world["model"])).model, tmp_path / "weights")


def test_only_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in range(1, 6):
        checkpoints.save({"step": step}, tmp_path, "checkpoint", step, keep=2)
        checkpoints.save({"step": -step}, tmp_path, "best", step, keep=1)
    assert len(list(tmp_path.glob("*.pt"))) == 3
    assert checkpoints.newest(tmp_path, "checkpoint", "cpu") == {"step": 5}
    assert checkpoints.best(tmp_path, 5) == {"step": -5}
    assert checkpoints.newest(tmp_path, "other", "cpu") is None


def with_val(world: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same pairs, a third of them held out."""
    inputs = small_inputs(folder, pictures=12)
    rows = tables.read(inputs["dataset"].path).to_pylist()
    for row in rows:
        row["split"] = "val" if row["image_key"] in ("k0", "k1", "k2", "k3") else row["split"]
    for path in tables.files(inputs["dataset"].path):
        tables.write(path, rows if path.name.endswith("00000.parquet") else [], DATASET)
    return {**world, "inputs": inputs}


def test_the_epoch_that_is_best_on_the_val_split_is_kept(world: dict[str, Any], tmp_path: Path) -> None:
    held = with_val(world, tmp_path)
    settings = {"batch": 4, "lr": 0.02, "select": "best", "epochs": 6}
    best = made(held, tmp_path / "best", **settings)
    history = best["meta"]["validation"]
    assert len(history) == 6 and history[-1]["step"] == best["meta"]["steps"]
    chosen = max(history, key=lambda one: one["score"])["step"]
    assert best["meta"]["kept_step"] == chosen < best["meta"]["steps"], "the last epoch is not the best here"
    with pytest.raises(StoppedError):
        made(held, tmp_path / "until", stop_at(chosen + 1), **settings | {"checkpoint_steps": 1})
    state = checkpoints.best(tmp_path / "until" / ".work", chosen)["student"]
    found = load_file(tmp_path / "best" / "student" / clip.WEIGHTS)
    assert all(torch.equal(tensor, found[name]) for name, tensor in state.items())
    resumed = made(held, tmp_path / "until", **settings)
    assert resumed["student"] == best["student"] and resumed["meta"]["validation"] == history


def test_without_a_val_split_no_epoch_can_be_chosen(world: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the dataset has no row in split val"):
        made(world, tmp_path, select="best")


# -- memory ------------------------------------------------------------------------------------------------------------


def test_out_of_memory_gives_advice_or_goes_on_with_more_chunks(
    world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = made(world, tmp_path / "free")
    encode = clip.encode_image

    def tight(model: Any, image_BCHW: torch.Tensor) -> torch.Tensor:
        if len(image_BCHW) > 2 and torch.is_grad_enabled():
            torch.empty(2**60)  # the allocator's own error
        return encode(model, image_BCHW)

    # The estimate asks for 4 pairs at most; a chunk of 3 does not fit, one of 2 (3 chunks of 6) would.
    monkeypatch.setattr(memory, "SAMPLE", 1)
    monkeypatch.setattr(clip, "encode_image", tight)
    with pytest.raises(UserError, match=r"no memory left on cpu for 6 pairs in 1 chunks: .*accumulate=2"):
        made(world, tmp_path / "advice")
    said: list[str] = []
    found = made(world, tmp_path / "auto", lambda what, *_: said.append(what), auto_accumulate=True, batch=6)
    assert "out of memory: going on with 4 chunks" in said
    assert found["steps"]["loss"] == pytest.approx(expected["steps"]["loss"], rel=1e-4)


def test_the_estimate_grows_with_the_chunk_and_a_lack_is_told_before_the_first_step(
    world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = clip.load(world["model"])
    rows = read_rows(world["inputs"]["dataset"], world["inputs"]["pairs"], NEGATIVE_TYPES)
    batch = Batches(rows, Pictures(rows, student), 12, 4, 1, 0)[0].on("cpu", student)
    objective = Objective(Loss(), student.model)
    whole, half = (memory.estimate(objective, batch, chunks) for chunks in (1, 2))
    weights = sum(parameter.nbytes for parameter in student.model.parameters())
    assert half - 5 * weights == pytest.approx((whole - 5 * weights) / 2, rel=1e-3)
    assert whole > 5 * weights
    monkeypatch.setattr(memory, "available", lambda device: 10)
    with pytest.raises(UserError, match=r"a step needs about .* GiB and 0\.0 GiB are free; expected"):
        made(world, tmp_path)


# -- settings ----------------------------------------------------------------------------------------------------------


def test_locked_towers_stay_as_they_are(world: dict[str, Any], tmp_path: Path) -> None:
    start = clip.load(world["model"], seed=42).model.state_dict()
    for name, other in (("image", "text"), ("text", "image")):
        found = made(world, tmp_path / name, accumulate=2, **{f"lock_{name}": True})
        delta = found["meta"]["weight_delta"]
        assert delta[name] == 0 and delta[other] > 1e-4
        assert found["meta"]["trained_parameters"] < found["meta"]["parameters"]
        if name == "image":
            student = load_file(tmp_path / name / "student" / clip.WEIGHTS)
            assert torch.equal(student["visual.proj"], start["visual.proj"])


def test_lora_learns_beside_frozen_weights_and_is_merged_into_a_plain_model(
    world: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    found = made(world, tmp_path / "whole", lora_rank=2, lr=0.02)
    start, tuned = clip.load(world["model"], seed=42), clip.load(str(tmp_path / "whole" / "student"))
    assert found["steps"]["loss"][-1] < found["steps"]["loss"][0]
    assert found["meta"]["trained_parameters"] < 0.2 * found["meta"]["parameters"]
    assert torch.equal(start.model.token_embedding.weight, tuned.model.token_embedding.weight)
    name = "transformer.resblocks.0.mlp.c_fc.weight"
    change = tuned.model.state_dict()[name] - start.model.state_dict()[name]
    assert 1 <= torch.linalg.matrix_rank(change, atol=1e-6) <= 2
    with pytest.raises(StoppedError):
        made(world, tmp_path / "cut", stop_at(8), lora_rank=2, lr=0.02)
    assert made(world, tmp_path / "cut", lora_rank=2, lr=0.02)["student"] == found["student"]


def test_lora_merged_says_what_lora_said(world: dict[str, Any]) -> None:
    pytest.importorskip("peft")
    model = clip.load(world["model"], seed=1).model
    tuning.add_lora(model, 2, 8.0, seed=3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.1)
    tokens, pictures = torch.tensor([[49406, 320, 2368, 49407]]), torch.randn(2, 3, 16, 16)
    before = (clip.encode_text(model, tokens), clip.encode_image(model, pictures))
    tuning.merge_lora(model)
    assert not any("lora" in name for name in model.state_dict())
    torch.testing.assert_close(clip.encode_text(model, tokens), before[0])
    torch.testing.assert_close(clip.encode_image(model, pictures), before[1])


def test_gradient_checkpointing_changes_no_bit(world: dict[str, Any], tmp_path: Path) -> None:
    plain, again = made(world, tmp_path / "plain"), made(world, tmp_path / "again", checkpoint_gradients=True)
    assert plain["student"] == again["student"]


def test_a_compiled_tower_trains_the_same_model(world: dict[str, Any], tmp_path: Path) -> None:
    plain, compiled = made(world, tmp_path / "p", epochs=1), made(world, tmp_path / "c", epochs=1, compile=True)
    assert compiled["steps"]["loss"] == pytest.approx(plain["steps"]["loss"], rel=1e-4)
    assert compiled["meta"]["determinism"]["compiled"] and plain["meta"]["determinism"]["level"] == "bits"


def test_steps_are_logged_to_tensorboard(world: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = made(world, tmp_path / "out", tensorboard=tmp_path / "board")
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, STEPS + 1))
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(found["steps"]["loss"])


def test_settings_that_do_not_fit_together_are_refused() -> None:
    for wrong, says in (
        ({"objective": {"fisher": 1}}, "ema must be 1"),
        ({"objective": {"base": 0, "distill": 0, "igc": 0, "tgc": 0}}, "at least one term"),
        ({"objective": {"triplet": 1}}, "need negative_images"),
        ({"batch": 255, "similar_images": 3}, "batch must be even"),
        ({"lora_rank": 4, "lock_image": True}, "leave lock_image"),
    ):
        with pytest.raises(ValidationError, match=says):
            Config.model_validate(wrong)


# -- pictures of negatives, similar pictures ---------------------------------------------------------------------------


def test_a_users_pictures_of_negatives_come_with_their_negative_in_front(world: dict[str, Any], tmp_path: Path) -> None:
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
    batches = Batches(rows, Pictures(rows, clip.load(world["model"])), 6, 5, 1, 0)
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


def test_mined_pictures_are_the_nearest_and_those_a_negative_fits(world: dict[str, Any]) -> None:
    inputs = world["inputs"]
    rows = read_rows(inputs["dataset"], inputs["pairs"], NEGATIVE_TYPES[:2])
    draw = torch.Generator().manual_seed(0)
    image_PD = torch.nn.functional.normalize(torch.randn(12, 8, generator=draw), dim=1)
    near = mining.neighbours(image_PD, 3)
    for p in range(12):
        by_hand = sorted((q for q in range(12) if q != p), key=lambda q: -float(image_PD[p] @ image_PD[q]))
        assert near[p].tolist() == by_hand[:3]
    vector: dict[bytes, torch.Tensor] = {}

    def embed(texts: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([vector.setdefault(t.numpy().tobytes(), torch.randn(8, generator=draw)) for t in texts])

    found = mining.fitting(image_PD, rows, embed)
    assert np.array_equal(found >= 0, rows.have)
    for row, kind in zip(*np.nonzero(rows.have), strict=True):
        caption, negative = embed([rows.text(0, row)])[0], embed([rows.text(1 + kind, row)])[0]
        scores = [float(picture @ negative - picture @ caption) for picture in image_PD]
        assert found[row, kind] == int(np.argmax(scores))


def test_half_of_each_batch_is_similar_to_the_other_half(world: dict[str, Any]) -> None:
    inputs = world["inputs"]
    rows = read_rows(inputs["dataset"], inputs["pairs"], ())
    neighbours = np.array([[(p + 1) % 12, (p + 2) % 12] for p in range(12)])
    batches = Batches(rows, Pictures(rows, clip.load(world["model"])), 6, 0, 2, 0, neighbours=neighbours)
    similar = 0
    for order in batches.order:
        assert len(set(rows.image[order])) == 6, "all pictures differ"
        for anchor, partner in zip(order[:3], order[3:], strict=True):
            similar += rows.picture[partner] in neighbours[rows.picture[anchor]]
    assert similar > 0.8 * batches.order.size / 2
    assert sorted(batches.order[: len(batches) // 2, :3].ravel()) == sorted(range(len(rows)))
