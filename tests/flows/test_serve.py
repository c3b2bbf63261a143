"""Prefect's server as `degla run` starts it: who may talk to it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
