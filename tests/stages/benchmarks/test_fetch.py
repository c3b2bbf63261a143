"""Downloads from a real server on this machine: whole, in parts, changed on the way, refused, and packed."""

import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from stages.benchmarks.fetch import File, fetch, files

CONTENT = os.urandom(300_000)


@dataclass
class Server:
    """Files by path, as a static server gives them: byte ranges, ETag and If-Range."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str | None] = field(default_factory=list)
    stops_after: int | None = None
    ranges: bool = True
    etags: bool = True
    hold: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.hold.set()

    def etag(self, name: str) -> str:
        return f'"{hashlib.sha256(self.files[name]).hexdigest()[:8]}"'


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            if self.path not in state.files:
                self.send_error(404)
                return
            content, etag = state.files[self.path], state.etag(self.path)
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0  # type: ignore[index]
            partial = bool(wanted) and state.ranges and self.headers.get("If-Range") == etag
            if partial and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            body = content[start:] if partial else content
            self.send_response(206 if partial else 200)
            if partial:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if state.etags:
                self.send_header("ETag", etag)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.stops_after])
            self.wfile.flush()
            state.hold.wait(30)
            self.close_connection = True

        def log_message(self, *args: Any) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
    state.url = f"http://127.0.0.1:{listening.server_port}"
    yield state
    listening.shutdown()
    listening.server_close()


@pytest.fixture
def file(server: Server, tmp_path: Path) -> File:
    server.files["/a.json"] = CONTENT
    return File(tmp_path / "set" / "a.json", f"{server.url}/a.json", ("sha256", hashlib.sha256(CONTENT).hexdigest()))


def test_a_file_is_fetched_checked_and_not_fetched_again(server: Server, file: File) -> None:
    steps: list[tuple[int, int]] = []
    fetch(file, lambda what, done, total: steps.append((done, total)))
    assert file.path.read_bytes() == CONTENT and steps[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in file.path.parent.iterdir()] == ["a.json"]
    fetch(file)
    assert server.asked == [None]


def test_a_connection_that_breaks_goes_on_where_it_stopped(server: Server, file: File) -> None:
    server.stops_after = 100_000
    with pytest.raises(UserError, match="broke off"):
        fetch(file)
    assert not file.path.exists() and file.part.stat().st_size == 100_000
    with pytest.raises(UserError, match="broke off"):
        fetch(file)
    server.stops_after = None
    fetch(file)
    assert file.path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=200000-"]


def test_a_killed_process_loses_nothing_that_came(server: Server, file: File) -> None:
    server.stops_after = 100_000
    server.hold.clear()
    script = (
        "from pathlib import Path; from stages.benchmarks.fetch import File, fetch; "
        f"fetch(File(Path({str(file.path)!r}), {file.url!r}, {file.checksum!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (file.part.exists() and file.part.stat().st_size):
        time.sleep(0.02)
    process.kill()
    process.wait()
    came = file.part.stat().st_size
    assert 0 < came <= 100_000 and not file.path.exists()
    server.stops_after = None
    server.hold.set()
    fetch(file)
    assert file.path.read_bytes() == CONTENT and server.asked == [None, f"bytes={came}-"]


@pytest.mark.parametrize("how", ["changed", "no_ranges", "no_validator"])
def test_parts_of_two_versions_are_never_joined(server: Server, file: File, how: str) -> None:
    server.stops_after = 100_000
    server.etags = how != "no_validator"
    with pytest.raises(UserError):
        fetch(file)
    server.stops_after = None
    server.ranges = how != "no_ranges"
    if how == "changed":
        server.files["/a.json"] = CONTENT[::-1]
    expected = server.files["/a.json"]
    fetch(replace(file, checksum=("sha256", hashlib.sha256(expected).hexdigest())))
    assert file.path.read_bytes() == expected


def test_killed_between_the_last_byte_and_the_name(server: Server, file: File) -> None:
    file.part.parent.mkdir()
    file.part.write_bytes(CONTENT)
    file.part.with_suffix(".validator").write_text(server.etag("/a.json"))
    fetch(file)
    assert file.path.read_bytes() == CONTENT and server.asked == [f"bytes={len(CONTENT)}-"]


def test_a_part_longer_than_the_file_is_thrown_away(server: Server, file: File) -> None:
    file.part.parent.mkdir()
    file.part.write_bytes(CONTENT + b"more")
    file.part.with_suffix(".validator").write_text(server.etag("/a.json"))
    with pytest.raises(UserError, match="answers 416"):
        fetch(file)
    fetch(file)
    assert file.path.read_bytes() == CONTENT


def test_another_checksum_leaves_nothing_behind(server: Server, file: File) -> None:
    with pytest.raises(UserError, match=rf"{server.url}/a.json has sha256 .*; expected 0000"):
        fetch(replace(file, checksum=("sha256", "0" * 64)))
    assert list(file.path.parent.iterdir()) == []


def test_what_is_not_there_is_said(server: Server, file: File) -> None:
    with pytest.raises(UserError, match=r"/b\.json answers 404"):
        fetch(replace(file, url=f"{server.url}/b.json"))
    with pytest.raises(UserError, match="does not answer"):
        fetch(replace(file, url="http://127.0.0.1:9/a.json"))
    assert not file.path.exists()


@pytest.mark.parametrize("first", ["gone", "dead", "changed"])
def test_the_mirror_is_asked_when_the_first_address_gives_nothing(server: Server, file: File, first: str) -> None:
    server.files["/changed.json"] = b"<html>moved</html>"
    url = {"dead": "http://127.0.0.1:9/a.json"}.get(first, f"{server.url}/{first}.json")
    fetch(replace(file, url=url, mirror=file.url))
    assert file.path.read_bytes() == CONTENT
    assert [path.name for path in file.path.parent.iterdir()] == ["a.json"]


def test_a_broken_connection_is_not_begun_anew_at_the_mirror(server: Server, file: File) -> None:
    server.files["/b.json"] = CONTENT
    server.stops_after = 100_000
    both = replace(file, mirror=f"{server.url}/b.json")
    with pytest.raises(UserError, match=r"/a\.json broke off.*it resumes from there"):
        fetch(both)
    server.stops_after = None
    fetch(both)
    assert file.path.read_bytes() == CONTENT and server.asked == [None, "bytes=100000-"]


def test_both_addresses_are_named_when_neither_has_it(server: Server, file: File) -> None:
    with pytest.raises(UserError, match=r"/b\.json answers 404; http://127.0.0.1:9/a.json does not answer"):
        fetch(replace(file, url=f"{server.url}/b.json", mirror="http://127.0.0.1:9/a.json"))


# -- archives ----------------------------------------------------------------------------------------------------------


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return out.getvalue()


def tarred(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packed:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            packed.addfile(info)
    return out.getvalue()


def archive(server: Server, root: Path, name: str, content: bytes, **rest: Any) -> File:
    server.files[f"/{name}"] = content
    return File(root / "images", f"{server.url}/{name}", None, into=root / "images", **rest)


@pytest.mark.parametrize(("name", "pack"), [("val.zip", zipped), ("val.tar.gz", tarred)])
def test_an_archive_is_unpacked_without_its_leading_folder(
    server: Server, tmp_path: Path, name: str, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    one = archive(server, tmp_path, name, pack({"val2017/1.jpg": b"one", "val2017/deep/2.jpg": b"two"}), strip=1)
    fetch(one)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"images/1.jpg", "images/deep/2.jpg"}
    fetch(one)
    assert len(server.asked) == 1


def test_one_member_can_be_wanted(server: Server, tmp_path: Path) -> None:
    packed = zipped({"dataset_coco.json": b"{}", "dataset_flickr8k.json": b"?"})
    one = archive(server, tmp_path, "captions.zip", packed, only="dataset_coco.json")
    fetch(replace(one, path=tmp_path / "images/dataset_coco.json"))
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["dataset_coco.json"]


def test_killed_while_unpacking_unpacks_again_without_a_download(server: Server, tmp_path: Path) -> None:
    one = archive(server, tmp_path, "val.zip", zipped({"1.jpg": b"one", "2.jpg": b"two"}))

    def kill(what: str, done: int, total: int) -> None:
        if what.startswith("files"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(one, kill)
    assert one.path.exists() and not one.is_complete
    fetch(one)
    assert one.is_complete and (tmp_path / "images/2.jpg").read_bytes() == b"two" and len(server.asked) == 1


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/outside.txt", "a/../../outside.txt"])
def test_an_archive_cannot_write_elsewhere(server: Server, tmp_path: Path, pack: Any, name: str) -> None:
    one = archive(server, tmp_path / "set", "bad", pack({name: b"x"}))
    with pytest.raises(UserError, match="expected members below one folder"):
        fetch(one)
    assert not (tmp_path / "outside.txt").exists()


def test_links_of_an_archive_are_left_out(server: Server, tmp_path: Path) -> None:
    one = archive(server, tmp_path, "x.tar.gz", tarred({"1.jpg": b"one"}, links={"out": "/etc"}))
    fetch(one)
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["1.jpg"]


def test_what_is_no_archive_is_one_line(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be unpacked"):
        fetch(archive(server, tmp_path, "x.zip", b"<html>not found</html>"))
    with pytest.raises(UserError, match="cannot be unpacked"):
        fetch(archive(server, tmp_path / "b", "y.tar.gz", tarred({"1.jpg": CONTENT})[:1000]))


# -- the registry ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sugarcrepe", "valse", "zeroshot", "coco_retrieval", "hard_positives"])
def test_what_the_registry_says_can_be_fetched_is_well_formed(name: str, tmp_path: Path) -> None:
    found = files(name, tmp_path)
    assert found and len({one.path for one in found}) == len(found)
    for one in found:
        assert all(url.startswith(("https://", "http://")) for url in (one.url, one.mirror or one.url))
        assert one.path.is_relative_to(tmp_path / name)
        assert one.checksum is None or len(one.checksum[1]) == {"sha256": 64, "md5": 32}[one.checksum[0]]
        assert one.into is None or one.path.is_relative_to(one.into)


def test_a_member_that_wants_a_password_or_has_no_name_is_one_line(server: Server, tmp_path: Path) -> None:
    locked = bytearray(zipped({"1.jpg": b"one"}))
    locked[6] |= 1  # the flag of the local header, and of the directory
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    nameless = bytearray(zipped({"1": b"one"}))
    lengths = nameless.index(b"PK\x01\x02") + 28
    nameless[lengths : lengths + 3] = b"\0\0\1"  # of the name, of what follows it
    with pytest.raises(UserError, match="cannot be unpacked"):
        fetch(archive(server, tmp_path, "x.zip", bytes(locked)))
    with pytest.raises(UserError, match="cannot be unpacked"):
        fetch(archive(server, tmp_path / "b", "y.zip", bytes(nameless)))
