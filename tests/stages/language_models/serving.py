"""A server of the OpenAI protocol as the tests need it: it says what it is told to, and may die."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], bytes]


def completion(*texts: str, reason: str = "stop") -> bytes:
    choices = [{"message": {"role": "assistant", "content": text}, "finish_reason": reason} for text in texts]
    return json.dumps({"choices": choices, "usage": {"prompt_tokens": 7, "completion_tokens": 3}}).encode()


@contextmanager
def serving(
    answer: Callable[[str, int], Answer], models: Answer | None = None, dies_after: int | None = None
) -> Iterator[tuple[str, list[Any]]]:
    """A real server on the loopback: `answer(caption, how often it was asked before)`; it dies after so many."""
    asked: Counter[str] = Counter()
    bodies: list[Any] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send(*(models or (200, {}, json.dumps({"data": [{"id": "m"}]}).encode())))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            caption = body["messages"][-1]["content"].rpartition("\n")[2]  # a repair says more before it
            with lock:
                before = asked[caption]
                asked[caption] += 1
                bodies.append({**body, "key": self.headers.get("Authorization")})
                if len(bodies) == dies_after:
                    server.shutdown()
                    server.server_close()
            self.send(*answer(caption, before))

        def send(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", bodies
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
