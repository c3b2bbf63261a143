"""The attack on images: on a small real CLIP it must lower margins, never raise a score, and repeat exactly."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import clip
from pipeline.schema import SCORES
from stages.benchmarks import loaders as benchmarks
from stages.benchmarks.rows import Subset
from stages.evaluate import robustness
from stages.evaluate.aggregates import aggregate
from stages.evaluate.config import Robustness
from stages.evaluate.encoder import Encoder
from stages.evaluate.robustness import attack, choose
from tests.stages.small_road import model_folder, write_benchmarks


@pytest.fixture(scope="module")
def subsets(tmp_path_factory: pytest.TempPathFactory) -> list[Subset]:
    root = tmp_path_factory.mktemp("benchmarks")
    write_benchmarks(root)
    return [one for name in ("sugarcrepe", "aro", "zeroshot") for one in benchmarks.load(name, root, official=False)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    tower = model_folder(tmp_path_factory.mktemp("tower"))
    return Encoder(lambda: clip.load(str(tower), seed=3), batch=8)


def margins(similarity_BK: np.ndarray) -> np.ndarray:
    return similarity_BK[:, 0] - similarity_BK[:, 1:].max(1)


def attacked(encoder: Encoder, subset: Subset, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    option_OD, own_BK = robustness.options(encoder, subset, subset.rows)
    return attack(encoder, subset.rows, option_OD[own_BK], Robustness(rows=1, **settings), seed=0)


def test_a_radius_of_nothing_changes_nothing(encoder: Encoder, subsets: list[Subset]) -> None:
    for subset in subsets:
        before, after = attacked(encoder, subset, eps=0)
        np.testing.assert_array_equal(before, after)


def test_the_attack_lowers_nearly_every_margin_and_raises_none(encoder: Encoder, subsets: list[Subset]) -> None:
    for subset in subsets:
        before, after = (margins(one) for one in attacked(encoder, subset, eps=4, step=1))
        assert (after <= before).all()
        assert (after < before).mean() > 0.9, subset.name
        further = margins(attacked(encoder, subset, eps=16, step=4)[1])
        assert further.mean() < after.mean(), "a wider ball holds worse images"


def test_untouched_similarities_are_those_of_the_plain_evaluation(encoder: Encoder, subsets: list[Subset]) -> None:
    for subset in subsets[:2]:
        at, image_ND = encoder.images([row.image for row in subset.rows if row.image])
        of, text_ND = encoder.texts([text for row in subset.rows for text in row.texts])
        plain = [[image_ND[at[row.image]] @ text_ND[of[text]] for text in row.texts] for row in subset.rows]  # type: ignore[index]
        np.testing.assert_allclose(attacked(encoder, subset)[0], plain, atol=1e-5)


def test_no_pixel_leaves_the_ball_or_the_range(
    encoder: Encoder, subsets: list[Subset], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    normalise = clip.normalise
    monkeypatch.setattr(
        clip, "normalise", lambda one, pixels: (seen.append(pixels.detach()), normalise(one, pixels))[1]
    )
    attacked(encoder, subsets[0], eps=2, step=5)
    clean, *moved = seen
    assert len(moved) == 6, "the start and five steps"
    for pixels in moved:
        assert (pixels - clean).abs().max() <= 2 and pixels.min() >= 0 and pixels.max() <= 255
    assert (moved[-1] - clean).abs().max() > 1.9


def rows_of(encoder: Encoder, subsets: list[Subset], rows: int) -> list[dict[str, Any]]:
    leaked = {("sugarcrepe", "swap_att", "0")}
    return robustness.score(encoder, subsets, Robustness(rows=rows, eps=8), "before", leaked, seed=1)


def test_rows_repeat_and_become_named_means(encoder: Encoder, subsets: list[Subset]) -> None:
    rows = rows_of(encoder, subsets, 100)
    assert rows == rows_of(encoder, subsets, 100)
    found = aggregate(pa.Table.from_pylist(rows, schema=SCORES))
    for question in ("zeroshot", "pairs"):
        right: dict[str, dict[str, list[float]]] = {"attacked": {}, "clean": {}}
        for row in rows:
            if row["subset"].startswith("zeroshot.") == (question == "zeroshot"):
                name, _, side = row["subset"].rpartition(".")
                right[side].setdefault(name, []).append(row["correct"])
        for side, called in (("attacked", "mean"), ("clean", "clean")):
            expected = np.mean([np.mean(correct) for correct in right[side].values()])
            assert found[f"robust.{question}.{called}"]["before"]["value"] == pytest.approx(expected)
        changed = [
            a != b
            for name in right["clean"]
            for a, b in zip(right["clean"][name], right["attacked"][name], strict=True)
        ]
        assert any(changed), "the attack turns some right answers wrong, so that the two means cannot be exchanged"
    assert found["robust.sugarcrepe.swap_att"]["n"] == 4 and found["robust.zeroshot.circles"]["n"] == 12
    assert {row["subset"] for row in rows if row["leaked"]} == {
        "sugarcrepe.swap_att.clean", "sugarcrepe.swap_att.attacked",
    }  # fmt: skip
    (digest,) = {row["protocol"] for row in rows if row["subset"] == "sugarcrepe.swap_att.attacked"}
    assert digest.endswith("linf=8/255;step=1/255;steps=5")


def test_no_more_rows_than_asked_and_the_same_for_every_model(subsets: list[Subset]) -> None:
    (zeroshot,) = (one for one in subsets if one.benchmark == "zeroshot")
    picked = choose(zeroshot, 5, seed=0)
    assert len(picked) == 5 and picked == choose(zeroshot, 5, seed=0) != choose(zeroshot, 5, seed=1)
    assert choose(zeroshot, 100, seed=0) == zeroshot.rows


def test_a_finished_subset_is_not_attacked_again(
    subsets: list[Subset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = model_folder(tmp_path / "tower")
    encoder = Encoder(lambda: clip.load(str(tower), seed=3), tmp_path / "work")
    rows = rows_of(encoder, subsets, 2)
    monkeypatch.setattr(robustness, "attack", lambda *_: pytest.fail("attacked again"))
    again = rows_of(encoder, subsets, 2)
    assert [row["correct"] for row in again] == [row["correct"] for row in rows]
    with pytest.raises(pytest.fail.Exception, match="attacked again"):
        rows_of(encoder, subsets, 3)  # other settings are another attack
