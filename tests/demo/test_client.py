"""The demo's client against a real HTTP server that records the request."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from demo import client
from demo.errors import FormError


@dataclass
class Server:
    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"the video"
    received: bytes = b""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.received = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(state.status)
            for name, value in {**state.headers, "Content-Length": str(len(state.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(state.body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        state.url = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield state
        listening.shutdown()
        thread.join()


def test_the_four_fields_are_posted_and_the_headers_are_read(server: Server, samples: Path) -> None:
    server.headers = {
        "X-Avatar-Frames": "178",
        "Server-Timing": "detection;dur=1250.5, encode;dur=300",
        "X-Avatar-Stand-Ins": "wav2lip",
    }
    video = client.post(server.url, samples / "portrait.png", samples / "speech.wav", "Blue")
    assert video == client.Video(b"the video", 178, {"detection": 1.2505, "encode": 0.3}, "wav2lip")
    for name in (b"face_file", b"audio_file", b"avatarFileType", b"background"):
        assert b'name="%s"' % name in server.received
    assert (samples / "portrait.png").read_bytes() in server.received


def test_a_rejection_keeps_the_message_of_the_service(server: Server, samples: Path) -> None:
    server.status, server.body = 400, b'{"detail": "Face not detected!"}'
    with pytest.raises(FormError, match=r"400: .*Face not detected!"):
        client.post(server.url, samples / "portrait.png", samples / "speech.wav")


def test_an_unreachable_service_is_an_error_with_its_address(samples: Path) -> None:
    with pytest.raises(FormError, match=r"127\.0\.0\.1:9"):
        client.post("http://127.0.0.1:9", samples / "portrait.png", samples / "speech.wav")
