import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import tables
from pipeline.artifact import (
    Artifact,
    digest,
    file_sha256,
    listing_digest,
    now,
    path_digest,
    unit_interval,
    verified,
)
from pipeline.errors import UserError
from pipeline.schema import PAIRS_REJECTED
from pipeline.store import Store

ROW = {"origin": "a.csv:2", "image_uri": "a.png", "caption": "", "reason": "caption_empty", "detail": "no word"}


def make(store: Store, fingerprint: str = "f" * 16) -> Artifact:
    with store.build("pairs_rejected", fingerprint) as partial:
        tables.write(tables.part(partial, 0), [ROW], PAIRS_REJECTED)
        (partial / ".work").mkdir(exist_ok=True)
        (partial / ".work" / "scratch").write_text("gone later")
        (partial / "note.txt").write_text("kept")
        return store.publish(partial, manifest=facts(fingerprint))


def facts(fingerprint: str) -> dict:
    return {
        "kind": "pairs_rejected",
        "stage": "ingest",
        "stage_version": 1,
        "fingerprint": fingerprint,
        "config": {},
        "inputs": {},
        "outside": {},
        "meta": {"score": None},
        "started": now(),
    }


def test_published_artifact_is_found_whole_and_without_scratch(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = make(store)
    found = store.find("pairs_rejected", "f" * 16)
    assert found == made
    assert found.manifest.rows == {"pairs_rejected": 1}
    assert sorted(found.manifest.files) == ["note.txt", "part-00000.parquet"]
    assert not (found.path / ".work").exists()


@pytest.mark.parametrize("harm", ["delete", "truncate", "flip", "manifest", "meta"])
def test_harmed_artifact_is_not_found(tmp_path: Path, harm: str) -> None:
    store = Store(tmp_path)
    part = tables.part(make(store).path, 0)
    if harm == "delete":
        part.unlink()
    elif harm == "truncate":
        part.write_bytes(part.read_bytes()[:-1])
    elif harm == "flip":
        raw = bytearray(part.read_bytes())
        raw[len(raw) // 2] ^= 1
        part.write_bytes(raw)
    elif harm == "manifest":
        (part.parent / "manifest.json").write_text('{"format": 1, "kind"')
    else:
        text = (part.parent / "manifest.json").read_text()
        (part.parent / "manifest.json").write_text(text.replace('"score": null', '"score": 1'))
    assert store.find("pairs_rejected", "f" * 16) is None


def test_what_is_not_a_number_does_not_break_the_seal(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.build("pairs", "e" * 16) as partial:
        store.publish(partial, manifest=facts("e" * 16) | {"kind": "pairs", "meta": {"loss": float("nan")}})
    assert store.find("pairs", "e" * 16) is not None


def test_digest_is_of_content_not_of_what_made_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert make(store, "a" * 16).digest == make(store, "b" * 16).digest


def test_home_may_be_moved(tmp_path: Path) -> None:
    store = Store(tmp_path / "here")
    store.link("demo", make(store))
    (tmp_path / "here").rename(tmp_path / "there")
    assert Store(tmp_path / "there").linked("demo", "pairs_rejected") is not None


def test_a_history_survives_a_line_that_a_kill_cut_short(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(UserError, match=r"run: cannot write .*demo"):
        store.log("demo", {"at": "now"})
    assert store.history("demo") == []
    store.link("demo", make(store))
    store.log("demo", {"at": "now"})
    path = tmp_path / "demo" / "history.jsonl"
    path.write_bytes(path.read_bytes() + b'{"at": "la\xff\n3\n')
    store.log("demo", {"at": "later"})
    assert [one["at"] for one in store.history("demo")] == ["now", "later"]


def test_a_glance_reads_the_manifest_and_no_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = make(store)
    store.link("demo", made)
    (made.path / "note.txt").write_text("harmed")
    glanced = store.glance("demo", "pairs_rejected")
    assert glanced is not None and glanced.manifest == made.manifest
    assert store.linked("demo", "pairs_rejected") is None and store.glance("demo", "pairs") is None
    store.link("demo", make(store))  # the same fingerprint, made again
    again = store.glance("demo", "pairs_rejected")
    assert again is not None and again.manifest.hardware["peak_memory_mib"] > 0


def _hold(home: Path, ready: "multiprocessing.synchronize.Event") -> None:
    with Store(home).build("pairs", "f" * 16) as partial:
        (partial / "half").write_text("half")
        ready.set()
        signal.pause()


def test_live_writer_is_named_and_dead_writer_is_forgotten(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    writer = context.Process(target=_hold, args=(tmp_path, ready))
    writer.start()
    assert ready.wait(60)
    with pytest.raises(UserError, match="another process is making pairs"), Store(tmp_path).build("pairs", "f" * 16):
        pass
    assert writer.pid
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    with Store(tmp_path).build("pairs", "f" * 16) as partial:
        assert (partial / "half").read_text() == "half"


def test_unwritable_home_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"store: cannot write .*; fix: choose another home"),
        Store(tmp_path / "file").build("pairs", "f"),
    ):
        pass


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "store", "a b", "../x"])
def test_run_names_stay_below_the_home(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot name a run"):
        Store(tmp_path).run(name)


def test_digests_see_what_they_should(tmp_path: Path) -> None:
    assert digest({"b": 1, "a": [1, 2]}) == digest({"a": [1, 2], "b": 1}) != digest({"a": [2, 1], "b": 1})
    (tmp_path / "x").write_text("one")
    content, listing = path_digest(tmp_path), listing_digest(tmp_path)
    (tmp_path / "x").write_text("two")
    os.utime(tmp_path / "x", ns=(0, 0))
    assert path_digest(tmp_path) != content and listing_digest(tmp_path) != listing


@pytest.mark.parametrize("name", ["../../secret", "/etc/hostname", "a/../../../secret"])
def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path, name: str) -> None:
    made = make(Store(tmp_path / "home"))
    outside = made.path / name
    digests = {name: file_sha256(outside) if outside.is_file() else "0"}
    forged = made.manifest.model_copy(update={"files": digests}).sealed()
    (made.path / "manifest.json").write_text(forged.model_dump_json())
    assert verified(made.path) is None


def test_a_card_may_be_written_anew_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.build("pairs", "0") as partial:
        for name in ("card.md", "table.txt"):
            (partial / name).write_text("one")
        facts = {"stage": "ingest", "stage_version": 1, "config": {}, "inputs": {}, "outside": {}, "meta": {}}
        made = store.publish(partial, manifest={"kind": "pairs", "fingerprint": "0", "started": "", **facts})
    (made.path / "card.md").write_text("two")
    found = verified(made.path)
    assert found is not None and found.digest == made.digest
    (made.path / "table.txt").write_text("two")
    assert verified(made.path) is None


@pytest.mark.parametrize("name", ["..", ".", "a/b", "/tmp", "a\0b", "store", "replies", "labels", "prefect", ""])
def test_a_run_has_a_plain_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot name a run"):
        Store(tmp_path).run(name)


def test_a_fingerprint_cannot_lead_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no fingerprint"):
        Store(tmp_path).find("pairs", "../../..")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, bytes]:
    made = make(Store(tmp_path_factory.mktemp("home")))
    return made, (made.path / "manifest.json").read_bytes()


@given(content=st.binary(max_size=200), place=st.integers(0, 900))
def test_no_damaged_manifest_is_an_error(whole: tuple[Artifact, bytes], content: bytes, place: int) -> None:
    made, manifest = whole
    (made.path / "manifest.json").write_bytes(manifest[:place] + content)
    found = verified(made.path)
    assert found is None or found.manifest == made.manifest


def test_an_error_steers_no_terminal_and_tells_no_password() -> None:
    error = UserError("store", "\x1b[2J s3://KEY:se/cret@bucket \u202e", "a\x9b31m", "x")
    assert str(error).isprintable() and "cret" not in str(error) and "s3://***@bucket" in str(error)


def test_a_missing_path_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        path_digest(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    assert path_digest(tmp_path / "empty") == path_digest(tmp_path)


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",))), unique=True))
def test_a_text_always_draws_the_same_number_below_one(texts: list[str]) -> None:
    drawn = [unit_interval(text) for text in texts]
    assert all(0 <= number < 1 for number in drawn) and drawn == [unit_interval(text) for text in texts]
    assert unit_interval("") == int("e3b0c44298fc", 16) / 2**48, "the first 48 bits of its sha256"
