"""A model hub on this machine: the paths, headers and redirects of the real one, over HTTP, for its real client."""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)")


@dataclass
class Hub:
    """Repositories by name, each a folder of files.

    Attributes:
        gated: repositories whose owner must give access first.
        breaks: files whose downloads break off after so many bytes.
        asked: (method, path, Range) of each request.
    """

    url: str = ""
    repositories: dict[str, Path] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    breaks: dict[Path, int] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    def environment(self, home: Path) -> dict[str, str]:
        """What makes the hub's client come here, with a cache of its own."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1,localhost", "HF_HUB_OFFLINE": "0"}


@contextmanager
def listening() -> Iterator[Hub]:
    """The hub, as long as the block is open."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            hub.asked.append((self.command, self.path, self.headers.get("Range")))
            if self.path.startswith("/cdn/"):
                return self.send_file(Path("/" + self.path.removeprefix("/cdn/")))
            found = RESOLVE.fullmatch(self.path)
            if not found or found[1] not in hub.repositories:
                return self.refuse(401, "RepoNotFound", "Invalid username or password.")
            if found[1] in hub.gated:
                return self.refuse(
                    401, "GatedRepo", f"Access to model {found[1]} is restricted. You must have access to it."
                )
            path = hub.repositories[found[1]] / found[2]
            if not path.is_file():
                return self.refuse(404, "EntryNotFound", "Entry not found")
            if path.suffix == ".json":
                return self.send_file(path, {"X-Repo-Commit": COMMIT})
            # Weights are large files: the answer names their content and sends the client to another host.
            self.send_response(302)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("X-Linked-Size", str(path.stat().st_size))
            self.send_header("X-Linked-Etag", f'"{hashlib.sha256(path.read_bytes()).hexdigest()}"')
            self.send_header("Location", f"{hub.url.replace('127.0.0.1', 'localhost')}/cdn{path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None

        def refuse(self, status: int, code: str, message: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send_file(self, path: Path, headers: dict[str, str] | None = None) -> None:
            content, wanted = path.read_bytes(), self.headers.get("Range")
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0  # type: ignore[index]
            self.send_response(206 if wanted else 200)
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content) - start))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                end = start + hub.breaks.get(path, len(content))
                self.wfile.write(content[start:end])
                self.close_connection = end < len(content)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
