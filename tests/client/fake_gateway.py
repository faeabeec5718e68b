"""A fake gateway that receives forms over HTTP, in a thread of this process."""

from __future__ import annotations

import email
import email.message
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECONDS = 30.0
VIDEO = bytes(range(256)) * 1000
HEADERS = {
    "Content-Type": "application/mp4",
    "X-Avatar-Frames": "75",
    "X-Avatar-Stand-Ins": "s3fd, wav2lip",
    "Server-Timing": "detect;dur=12.5",
}


class FakeGateway:
    """Responds with `status`, `headers` and `body` without its last `cut` bytes, once `may_respond` is set."""

    def __init__(self) -> None:
        self.status, self.headers, self.body = 200, dict(HEADERS), VIDEO
        self.cut = 0
        self.received, self.may_respond, self.disconnected = threading.Event(), threading.Event(), threading.Event()
        self.may_respond.set()
        self.reads_form = True  # whether it reads the form before it responds
        self.texts: dict[str, str] = {}
        self.files: dict[str, tuple[str, bytes]] = {}
        self.path = ""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeGateway:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.may_respond.set()
        self._server.shutdown()
        self._server.server_close()

    def reject(self, status: int, detail: str, **headers: str) -> None:
        self.status, self.body = status, json.dumps({"detail": detail}).encode()
        self.headers = {"Content-Type": "application/json", **headers}


def _handler(gateway: FakeGateway) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            gateway.path = self.path
            self.close_connection = True
            if gateway.reads_form:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                _read(gateway, self.headers["Content-Type"], body)
            gateway.received.set()
            while not gateway.may_respond.wait(0.02):
                self.connection.settimeout(0.02)
                try:
                    if self.connection.recv(1) == b"":
                        gateway.disconnected.set()
                        return
                except TimeoutError:
                    pass
                self.connection.settimeout(None)
            self.send_response(gateway.status)
            for name, value in gateway.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(gateway.body)))
            self.end_headers()
            self.wfile.write(gateway.body[: len(gateway.body) - gateway.cut])

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _read(gateway: FakeGateway, kind: str, body: bytes) -> None:
    form = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    for part in form.get_payload():
        assert isinstance(part, email.message.Message)
        name = str(part.get_param("name", header="Content-Disposition"))
        data = part.get_payload(decode=True)
        assert isinstance(data, bytes)
        if (file := part.get_filename()) is not None:
            gateway.files[name] = (file, data)
        else:
            gateway.texts[name] = data.decode()
