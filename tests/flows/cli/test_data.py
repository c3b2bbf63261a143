"""`degla data` as a user calls it: what it prints, its exit status, and that nothing is downloaded unasked."""

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from flows.cli import main as cli
from pipeline.errors import UserError
from stages.benchmarks import registry as benchmark_registry
from tests.stages.small_road import picture, write_benchmarks


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["data", *map(str, arguments)])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_benchmarks(tmp_path)
    return tmp_path


def test_list_shows_every_benchmark_and_where_its_parts_are_from(root: Path) -> None:
    plain = call("list").output
    assert all(name in plain for name in ("sugarcrepe", "mmvp", "flickr30k_retrieval"))
    one = call("list", "sugarcrepe", "--root", root).output
    assert "raw.githubusercontent.com" in one and "arXiv:2306.14610" in one
    assert "2 of 7" in one and "4 of 4" in one  # files, pictures
    assert (
        "mirror" in call("list", "negbench").output
        and "2026-11-30, columns and rule" in call("list", "negbench").output
    )


def test_check_is_status_2_with_a_line_for_each_thing_that_is_wrong(root: Path) -> None:
    (root / "sugercrepe").mkdir()
    whole = call("check", "--root", root, "--no-official")
    assert whole.exit_code == 0 and "sugercrepe           is no benchmark" in whole.output
    (root / "sugarcrepe/images/1.png").unlink()
    (root / "valse/plurals.json").write_text("{")
    found = call("check", "--root", root, "--no-official")
    assert found.exit_code == 2
    assert "sugarcrepe lacks 1 of 4 images" in found.stderr and "plurals.json cannot be read" in found.stderr
    official = call("check", "sugarcrepe", "--root", root)
    assert official.exit_code == 2
    assert "has valid 4; expected 2062" in official.stderr and "lacks add_att, replace_att" in official.stderr
    assert "add_obj.json has sha256" in official.stderr
    assert all(line.startswith(("data: ", "evaluate: ")) for line in official.stderr.splitlines() if "expected" in line)


def test_check_of_what_is_not_there(tmp_path: Path) -> None:
    assert call("check", "mmvp", "--root", tmp_path).exit_code == 2
    assert "holds no benchmark" in call("check", "--root", tmp_path).output
    assert isinstance(call("check", "sugar", "--root", tmp_path).exception, UserError)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A registry whose one benchmark lies on a server on this machine."""
    folder = tmp_path / "served"
    folder.mkdir()
    row = {"filename": "0.png", "caption": "a cup on a table", "negative_caption": "a table on a cup"}
    (folder / "swap_obj.json").write_text(json.dumps({"0": row}))
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/swap_obj.json"
    sha256 = hashlib.sha256((folder / "swap_obj.json").read_bytes()).hexdigest()
    facts = {
        "title": "Small", "licence": "MIT", "verified": "never", "pictures": "yours", "measures": "order",
        "subsets": {"swap_obj": {"valid": 1, "sha256": sha256[:12]}},
        "files": [{"path": "swap_obj.json", "url": f"{url}.moved", "mirror": url, "sha256": sha256},
                  {"path": "images", "url": url, "unpack": {"into": "images"}, "pictures": True}],
    }  # fmt: skip
    registry = tmp_path / "registry.yaml"
    registry.write_text(yaml.safe_dump({"sugarcrepe": facts}))
    monkeypatch.setattr(benchmark_registry, "REGISTRY", registry)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    benchmark_registry.registry.cache_clear()
    yield tmp_path / "root"
    benchmark_registry.registry.cache_clear()
    server.shutdown()
    server.server_close()


def test_fetch_says_what_it_will_do_and_asks_first(served: Path) -> None:
    asked = call("fetch", "sugarcrepe", "--root", served)
    assert "licence MIT" in asked.output and "swap_obj.json" in asked.output and not served.exists()
    assert isinstance(asked.exception, UserError) and asked.exception.fix.endswith("--yes"), "nobody is there to answer"
    assert CliRunner().invoke(cli.app, ["data", "fetch", "sugarcrepe", "--root", str(served)], "n\n").exit_code == 0
    assert not served.exists()
    (told,) = json.loads(call("fetch", "sugarcrepe", "--root", served, "--json").stdout)
    assert told["url"].endswith("swap_obj.json.moved") and told["is_complete"] is False and not served.exists()
    done = call("fetch", "sugarcrepe", "--root", served, "--yes")
    assert done.exit_code == 0 and "1 files fetched" in done.output, "from the mirror: the first address is a 404"
    picture(served / "sugarcrepe/images/0.png", "red", "blue")
    assert call("check", "sugarcrepe", "--root", served).exit_code == 0
    assert "nothing to do" in call("fetch", "sugarcrepe", "--root", served, "--yes").output


def test_foils_are_frozen_where_aro_is_read(tmp_path: Path) -> None:
    source, target = tmp_path / "flickr30k_test.json", tmp_path / "root/aro/flickr30k_order.json"
    source.write_text(json.dumps([{"image": "1.jpg", "caption": ["A red cup is on the old table.", "Two dogs."]}]))
    found = call("foils", source, target, "--drop-no-ops")
    assert found.exit_code == 0 and "1 rows in" in found.output and "1 left out" in found.output
    picture(target.parent / "images/1.jpg", "red", "blue")
    assert call("check", "aro", "--root", tmp_path / "root", "--no-official").exit_code == 0
    assert yaml.safe_load(target.with_suffix(".yaml").read_text())["source"]
