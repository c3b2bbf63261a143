"""Pieces are computed once, and never taken for each other."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.stage import silent
from stages.evaluate import pieces as module
from stages.evaluate.pieces import pieces


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", 3)


def squares(numbers: Sequence[int]) -> list[float]:
    return [float(number**2) for number in numbers]


def computed(work: Path | None, numbers: Sequence[int], compute: object = squares) -> list[float]:
    names = [str(number) for number in numbers]
    return np.concatenate(list(pieces(work, "n", numbers, names, compute, silent))).tolist()  # type: ignore[arg-type]


def test_in_order_with_and_without_a_folder(tmp_path: Path) -> None:
    assert computed(None, range(7)) == computed(tmp_path, range(7)) == squares(range(7))
    assert len(list(tmp_path.glob("n-*.npy"))) == 3 and not list(tmp_path.glob(".*"))


def test_a_killed_run_repeats_one_piece(tmp_path: Path) -> None:
    def killed(numbers: Sequence[int]) -> list[float]:
        if 6 in numbers:
            raise KeyboardInterrupt
        return squares(numbers)

    with pytest.raises(KeyboardInterrupt):
        computed(tmp_path, range(7), killed)
    left: list[Sequence[int]] = []
    assert computed(tmp_path, range(7), lambda numbers: left.append(numbers) or squares(numbers)) == squares(range(7))
    assert [list(one) for one in left] == [[6]]


def test_other_items_are_another_piece(tmp_path: Path) -> None:
    assert computed(tmp_path, [1, 2]) == [1, 4] and computed(tmp_path, [2, 1]) == [4, 1]
    assert computed(tmp_path, [12]) == [144], "1 and 2 are not 12"
