"""A home in object storage, against a real S3-compatible server on loopback: what one machine makes, another finds."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyarrow.fs import FileSelector

from pipeline import bucket
from pipeline.bucket import Bucket
from pipeline.errors import TransientError, UserError
from pipeline.home import open_store
from tests.pipeline.test_artifact import facts, make

Machine = Callable[[str], Bucket]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(urllib.request.Request(f"{address}/degla", method="PUT"), timeout=5)
            break
        except OSError:
            time.sleep(0.1)
    yield address.removeprefix("http://")
    process.kill()
    process.wait()


@pytest.fixture
def machine(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine by name: machines share the bucket of the test, and nothing else."""
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "test")
    folder = tmp_path.name.lower()

    def named(name: str) -> Bucket:
        monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / name))
        monkeypatch.setenv("DEGLA_HOME", f"s3://degla/{folder}?endpoint_override={server}&scheme=http&region=us-east-1")
        store = open_store()
        assert isinstance(store, Bucket)
        return store

    return named


def objects(store: Bucket) -> list[str]:
    found = store.filesystem.get_file_info(FileSelector(store.root, allow_not_found=True, recursive=True))
    return sorted(one.path.removeprefix(store.root) for one in found if one.is_file)


def test_what_one_machine_makes_another_finds(machine: Machine) -> None:
    one = machine("one")
    made = make(one)
    one.keep_recipe("demo", "train: {}\n")
    one.link("demo", made)

    other = machine("other")
    assert other.runs() == ["demo"]
    assert other.recipe("demo").read_text() == "train: {}\n"
    linked = other.linked("demo", "pairs_rejected")
    assert linked.manifest == made.manifest
    assert linked.path != made.path
    assert (linked.path / "note.txt").read_text() == "kept"
    assert (other.run("demo") / "pairs_rejected" / "note.txt").exists(), "as in a local home"
    assert other.find("pairs_rejected", "f" * 16) == linked
    assert other.find("pairs_rejected", "0" * 16) is None
    one.log("demo", {"at": "now"})
    other.log("demo", {"at": "later"})
    third = machine("third")
    assert third.history("demo") == [{"at": "now"}, {"at": "later"}]
    assert third.glance("demo", "pairs_rejected").manifest == made.manifest
    assert not third.run("demo").exists(), "only the manifest was fetched"


def test_an_artifact_whose_sending_was_cut_off_is_none_and_is_sent_again(machine: Machine) -> None:
    one = machine("one")
    make(one)
    manifest = next(name for name in objects(one) if name.endswith(f"{'f' * 16}/manifest.json"))
    one.filesystem.delete_file(one.root + manifest)  # the last object: as if killed just before
    assert machine("other").find("pairs_rejected", "f" * 16) is None
    assert machine("one").find("pairs_rejected", "f" * 16) is not None
    assert machine("other").find("pairs_rejected", "f" * 16) is not None


def test_a_damaged_copy_in_the_cache_is_fetched_again(machine: Machine) -> None:
    one = machine("one")
    (make(one).path / "note.txt").write_text("other")
    assert (one.find("pairs_rejected", "f" * 16).path / "note.txt").read_text() == "kept"


@pytest.mark.parametrize(("kind", "folder"), [("model", "{partial}/.work"), ("negatives", "{home}/replies/swap/d1")])
def test_what_is_paid_for_outlives_the_machine(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, kind: str, folder: str
) -> None:
    monkeypatch.setattr(bucket, "INTERVAL", 0.05)
    name = "checkpoint-{}.pt" if kind == "model" else "{}.parquet"

    def place(store: Bucket, partial: Path) -> Path:
        found = Path(folder.format(partial=partial, home=store.home))
        found.mkdir(parents=True, exist_ok=True)
        return found

    one = machine("one")
    with one.build(kind, "a" * 16) as partial:
        (place(one, partial) / name.format(1)).write_bytes(b"first")
        (place(one, partial) / ".2.tmp").write_bytes(b"unfinished")
        for _ in range(200):
            if any(name.format(1) in path for path in objects(one)):
                break
            time.sleep(0.05)
        # Here the machine is lost: what follows happens elsewhere, while its lock is still held.
        other = machine("other")
        with other.build(kind, "a" * 16) as theirs:
            found = place(other, theirs)
            assert {path.name: path.read_bytes() for path in found.iterdir()} == {name.format(1): b"first"}
            if kind == "model":
                (found / name.format(1)).unlink()
                (found / name.format(2)).write_bytes(b"second")
                with pytest.raises(AssertionError):
                    (theirs / "note.txt").write_text("done")
                    raise AssertionError("left without publishing")
    kept = [path for path in objects(other) if name.format("")[-3:] in path]
    assert [path.rpartition("/")[2] for path in kept] == [name.format(2 if kind == "model" else 1)]


def test_machines_that_fill_one_run_get_each_others_replies(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "INTERVAL", 0.05)
    both = [machine("one"), machine("other")]
    with both[0].build("negatives", "c" * 16), both[1].build("negatives", "c" * 16):
        for number, store in enumerate(both):
            path = store.home / "replies" / "swap" / "d1" / f"{number}.parquet"
            path.parent.mkdir(parents=True)
            path.write_bytes(b"paid by %d" % number)
        folders = [store.home / "replies" / "swap" / "d1" for store in both]
        wanted = [folder / f"{number}.parquet" for folder in folders for number in range(2)]
        deadline = time.monotonic() + 30
        while not all(path.exists() for path in wanted) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [path.read_bytes() for path in wanted] == [b"paid by 0", b"paid by 1"] * 2


def test_checkpoints_go_when_the_model_is_there(machine: Machine) -> None:
    one = machine("one")
    with one.build("model", "b" * 16) as partial:
        (partial / ".work").mkdir()
        (partial / ".work" / "checkpoint-1.pt").write_bytes(b"state")
        (partial / "weights").write_bytes(b"end")
        one._send_new(one._paid_for("model", partial), set())
        one.publish(partial, manifest=facts("b" * 16) | {"kind": "model"})
    assert not [path for path in objects(one) if ".pt" in path]
    assert machine("other").find("model", "b" * 16) is not None


def test_a_bucket_that_is_not_there_is_told_in_one_line(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("one")
    monkeypatch.setenv("DEGLA_HOME", os.environ["DEGLA_HOME"].replace("s3://degla/", "s3://nowhere/"))
    with pytest.raises(UserError, match="nowhere.*fix: choose another home"):
        make(open_store())
    monkeypatch.setenv("DEGLA_HOME", "gopher://hole")
    with pytest.raises(UserError, match="cannot open gopher://hole"):
        open_store()


@pytest.mark.slow
def test_a_server_that_does_not_answer_may_answer_later(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("one")
    home = "s3://degla/x?endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1"
    monkeypatch.setenv("DEGLA_HOME", home)
    with pytest.raises(TransientError, match="run the same command again"):
        open_store().runs()


def test_the_cache_may_be_thrown_away(machine: Machine) -> None:
    one = machine("one")
    made = make(one)
    shutil.rmtree(one.home)
    assert one.find("pairs_rejected", "f" * 16).manifest == made.manifest
