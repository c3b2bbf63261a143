"""Prefect's server as `degla run` starts it: who may talk to it."""

import json
import os
import signal
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread

import pytest

from flows import serve
from tests.paths import ROOT

SCRIPT = """
import json, os, sys, urllib.error, urllib.request
from pathlib import Path
from flows import serve
from pipeline.store import Store

serve.find_server(Store(Path(sys.argv[1])))
url = os.environ["PREFECT_API_URL"]

def post(origin):
    body = json.dumps({"name": "from a page"}).encode()
    headers = {"Content-Type": "application/json", "Origin": origin}
    try:
        with urllib.request.urlopen(urllib.request.Request(url + "/flows/", body, headers)) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code

def allowed(origin):
    with urllib.request.urlopen(urllib.request.Request(url + "/health", headers={"Origin": origin})) as answer:
        return answer.headers.get("Access-Control-Allow-Origin")

from prefect.artifacts import create_markdown_artifact
made = create_markdown_artifact("ours", key="ours")
page = "https://evil.example"
print(json.dumps({"url": url, "page": post(page), "origin": allowed(page), "ours": str(made)}))
"""


@pytest.mark.slow
def test_a_page_in_the_users_browser_cannot_use_the_server(tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=tmp_path, env=clean | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["url"].startswith("http://127.0.0.1:"), "loopback alone"
    assert found["page"] == 403 and found["origin"] is None and found["ours"]


def test_prefect_toml_names_the_port_that_degla_serve_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.chdir(ROOT)
    assert serve.configured_url() == f"http://127.0.0.1:{serve.PORT}/api"


def test_a_port_that_another_program_has_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-m", "degla", "serve", "--port", str(port)],
            env={**os.environ, "DEGLA_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"serve: port {port} cannot be had (Address already in use); expected a free port")
    assert ended.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_webhook_is_told_of_a_failed_run_and_one_command_sets_that_up(tmp_path: Path) -> None:
    told: Queue[bytes] = Queue()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    env = clean | {"DEGLA_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    there = env | {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", *words], env=there, capture_output=True, text=True, timeout=120)

    with HTTPServer(("127.0.0.1", 0), Hook) as hook:
        Thread(target=hook.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{hook.server_port}/hook"
        nobody = run("degla", "notify", address)
        assert nobody.returncode == 2 and nobody.stderr.startswith(
            "notify: no Prefect server answers at http://127.0.0.1"
        )
        words = [sys.executable, "-m", "degla", "serve", "--port", str(port)]
        with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True) as served:
            try:
                assert served.stdout and served.stdout.readline().startswith("serving on")
                for _ in range(2):
                    asked = run("degla", "notify", address)
                    assert asked.returncode == 0, asked.stderr
                automations = run("prefect", "automation", "ls").stdout
                assert automations.count("degla notify") == 1 and automations.count("degla crashed") == 1
                run("prefect", "deployment", "run", "degla/train", "-p", "run=nothing", "-p", "recipe=demo")
                text = json.loads(told.get(timeout=120))["text"]
                assert text.startswith("degla nothing: Failed\ntrain: run 'nothing' has no intact pairs; expected ")
            finally:
                served.send_signal(signal.SIGINT)
        hook.shutdown()
