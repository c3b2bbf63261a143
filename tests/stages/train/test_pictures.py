"""Images decoded once: equal to those decoded each time, whole or absent, shared by trainings at work at once."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from pipeline import clip
from pipeline.artifact import file_sha256
from pipeline.errors import UserError
from pipeline.stage import silent
from stages.train import pictures
from stages.train.pictures import SHARD, Images, unused
from tests.paths import ROOT
from tests.stages.training import small_clip

COUNT = 10


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    folder = tmp_path_factory.mktemp("pictures")
    return folder, clip.load(small_clip(folder / "model")), files(folder / "images", COUNT)


def files(root: Path, count: int) -> Any:
    root.mkdir()
    rng = np.random.default_rng(0)
    for index in range(count):
        noise = rng.integers(0, 255, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((40 + index, 50)).save(root / f"{index}.jpg")
    uris = [f"{index}.jpg" for index in range(count)]
    return SimpleNamespace(root=root, uris=uris, sha256=[file_sha256(root / uri) for uri in uris])


@pytest.fixture(autouse=True)
def _few_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SHARD > 100, "few files, and little lost by a kill"
    monkeypatch.setattr(pictures, "SHARD", 4)


@pytest.mark.parametrize("crop", ["center", "random"])
def test_kept_images_are_those_decoded_each_time(made: tuple, tmp_path: Path, crop: Any) -> None:
    _, model, there = made
    fresh, kept, seen = Images(there, model, crop), Images(there, model, crop), []
    kept.keep(tmp_path, 2, lambda *report: seen.append(report))
    assert seen[-1] == ("images decoded", COUNT, COUNT) and kept.are_kept and not fresh.are_kept
    stored = list(tmp_path.glob("images/*/*.arrow"))
    assert len(stored) == 3 and sum(path.stat().st_size for path in stored) < kept.nbytes + 3 * 2000
    numbers = np.array([7, 0, 7, 3])
    for one, other in zip(kept.stack(numbers), fresh.stack(numbers), strict=True):
        assert np.array_equal(one, other)
    assert all(torch.equal(kept[number], fresh[number]) for number in range(COUNT))
    assert all(torch.equal(pickle.loads(pickle.dumps(kept))[number], kept[number]) for number in (2, 9))


def test_they_are_decoded_once_whoever_asks_and_in_whatever_order(
    made: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model, there = made
    Images(there, model).keep(tmp_path, 2, silent)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.arrow")}
    backwards = SimpleNamespace(root=there.root, uris=there.uris[::-1], sha256=there.sha256[::-1])
    unseen = SimpleNamespace(root=there.root, uris=there.uris, sha256=[None] * COUNT)
    monkeypatch.setattr(Images, "_decoded", None)
    for source in (backwards, unseen):
        again = Images(source, model)
        again.keep(tmp_path, 2, silent)
        assert len(again[0]) == 3
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.arrow")} == before


def test_more_images_are_added_to_those_there_are(made: tuple, tmp_path: Path) -> None:
    _, model, there = made
    few = SimpleNamespace(root=there.root, uris=there.uris[3:6], sha256=there.sha256[3:6])
    Images(few, model).keep(tmp_path, 1, silent)
    seen: list[tuple] = []
    every = Images(there, model)
    every.keep(tmp_path, 1, lambda *report: seen.append(report))
    assert seen[0][1] > 3 and seen[-1][1] == COUNT
    held = [key for path in tmp_path.rglob("*.arrow") for key in pictures._read(path).sha256]
    assert sorted(held) == sorted(there.sha256), "none twice"
    assert all(torch.equal(every[number], Images(there, model)[number]) for number in range(COUNT))


KILLED = """
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace
from pipeline import clip
from stages.train import pictures
pictures.SHARD = 4
folder, home = Path(sys.argv[1]), Path(sys.argv[2])
uris = [f"{index}.jpg" for index in range(10)]
there = SimpleNamespace(root=folder / "images", uris=uris, sha256=[None] * 10)
images, decoded = pictures.Images(there, clip.load(str(folder / "model"))), []
whole = images._decoded
def die(number, content=None):
    decoded.append(number)
    if len(decoded) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(number, content)
images._decoded = die
images.keep(home, 1, lambda *report: None)
"""


def test_a_kill_costs_the_file_in_hand(made: tuple, tmp_path: Path) -> None:
    folder, model, there = made
    command = [sys.executable, "-c", KILLED, str(folder), str(tmp_path)]
    dead = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    assert len(list(tmp_path.rglob("*.arrow"))) == 1
    left = [path for path, _ in unused(tmp_path, set(there.sha256))]
    assert [path.suffix for path in left] == [".lock"], "and nothing else that only takes room"
    seen: list[tuple] = []
    images = Images(there, model)
    images.keep(tmp_path, 1, lambda *report: seen.append(report))
    assert [done for _, done, _ in seen] == [8, 10], "four were there already"
    assert torch.equal(images[6], Images(there, model)[6])
    assert list(unused(tmp_path, set(there.sha256))) == []


def test_two_trainings_at_once_share_the_decoding(made: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, model, there = made
    decoded: list[int] = []
    both = threading.Barrier(2)
    whole = Images._decoded

    def counted(self: Images, number: int, content: bytes | None = None) -> Any:
        if not decoded:
            both.wait(20)
        decoded.append(number)
        return whole(self, number, content)

    monkeypatch.setattr(Images, "_decoded", counted)
    trainings = [Images(there, model) for _ in range(2)]
    threads = [threading.Thread(target=one.keep, args=(tmp_path, 1, silent)) for one in trainings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(decoded) == list(range(COUNT)), "each image once"
    assert all(torch.equal(one[number], trainings[0][number]) for one in trainings for number in range(COUNT))


def test_a_full_disk_is_one_line_and_harms_nothing(
    made: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model, there = made
    line = r"train: no room in .*images for 10 images, decoded once: 0\.0 GB in all; expected room .*train\.cache_mb=0"
    with monkeypatch.context() as patch:
        patch.setattr(pictures.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
        with pytest.raises(UserError, match=line):
            Images(there, model).keep(tmp_path, 2, silent)
    assert not list(tmp_path.rglob("*.arrow"))

    opened = pa.ipc.new_file
    calls: list[int] = []

    def full(target: Any, schema: pa.Schema) -> Any:
        calls.append(1)
        if len(calls) == 2:
            target.write(b"half a file")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(target, schema)

    monkeypatch.setattr(pictures.pa.ipc, "new_file", full)
    with pytest.raises(UserError, match=line):
        Images(there, model).keep(tmp_path, 1, silent)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in left if path.suffix == ".tmp"]
    images = Images(there, model)
    images.keep(tmp_path, 1, silent)
    assert all(torch.equal(images[number], Images(there, model)[number]) for number in range(COUNT))


def test_an_image_that_changed_since_ingest_is_named(made: tuple, tmp_path: Path) -> None:
    there = files(tmp_path / "images", 3)
    Image.new("RGB", (30, 30)).save(there.root / "1.jpg")
    with pytest.raises(UserError, match=r"1\.jpg is not the file that ingest saw; .* run ingest again"):
        Images(there, made[1]).keep(tmp_path / "home", 1, silent)


def test_what_no_pairs_hold_is_unused_and_what_is_being_made_is_not(
    made: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model, there = made
    images = Images(there, model)
    images.keep(tmp_path, 1, silent)
    stored = sorted(tmp_path.rglob("*.arrow"))
    assert [path for path, _ in unused(tmp_path, set())] == stored
    assert list(unused(tmp_path, set(there.sha256))) == []
    (gone,) = unused(tmp_path, set(there.sha256) - set(pictures._read(stored[0]).sha256))
    assert gone[0] == stored[0]
    with pictures._locked(stored[0].with_name("other.arrow"), wait=False) as mine:
        assert mine and list(unused(tmp_path, set(there.sha256))) == []
    assert [path.name for path, _ in unused(tmp_path, set(there.sha256))] == [".other.lock"]
    for path in [*stored, stored[0].with_name(".other.lock")]:
        path.unlink()
    assert len(images[5]) == 3, "files that are mapped stay until their training ends"
    monkeypatch.setattr(pictures.PIL, "__version__", "0.1")
    Images(there, model).keep(tmp_path, 1, silent)
    monkeypatch.undo()
    assert {why for _, why in unused(tmp_path, set(there.sha256))} == {"images decoded by another version of Pillow"}
