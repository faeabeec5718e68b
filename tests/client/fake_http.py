"""A fake HTTP server that answers each path with a fixed JSON, in a thread of this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NOT_FOUND = (404, {"error": "Not Found"})  # as Triton's port for HTTP answers


class FakeHttp:
    """Answers with the status and the JSON of `answers`, by path; all other paths are not found."""

    def __init__(self, answers: dict[str, tuple[int, object]] | None = None) -> None:
        self.answers = answers or {}
        self.keys: list[str] = []  # what each request has sent as Authorization
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeHttp:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(fake: FakeHttp) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fake.keys.append(self.headers.get("Authorization", ""))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, document = fake.answers.get(self.path.partition("?")[0], NOT_FOUND)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - its name of a method

        def log_message(self, *_: object) -> None:
            pass

    return Handler
