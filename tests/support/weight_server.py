"""A server of checkpoints that tests can make slow, busy or broken, and a file that it offers."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from export.checkpoints import fetch
from export.checkpoints.download import RetryPolicy
from export.checkpoints.fetch import FetchOptions
from export.checkpoints.registry import PublishedFile

CONTENT = bytes(range(256)) * 4096  # a megabyte
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PAGE = b"<!DOCTYPE html><html><body>moved</body></html>"
QUICK = RetryPolicy(rounds=2, timeout=2, pause=0.01, max_pause=0.05)
YES = FetchOptions(accept_license=True)


@dataclass
class ServerBehavior:
    """The behavior of a test server, and the requests that it has received."""

    content: bytes = CONTENT
    status: int = 200
    kind: str = "application/octet-stream"
    ranges: bool = True
    cut: list[int] = field(default_factory=list)  # bytes after which each of the next responses ends
    etag: str = '"1"'
    pause: float = 0.0  # seconds between blocks of 64 KB
    busy: int = 0  # number of next responses that are 503, with Retry-After
    requests: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def serving(behavior: ServerBehavior) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            behavior.requests.append({"path": self.path, **self.headers})
            start, status, body = 0, behavior.status, behavior.content
            if behavior.busy:
                behavior.busy -= 1
                status, body = 503, b"later"
            requested_range = self.headers.get("Range", "")
            fresh = self.headers.get("If-Range", behavior.etag) == behavior.etag
            if status == 200 and behavior.ranges and fresh and requested_range:
                start, status = int(requested_range.removeprefix("bytes=").removesuffix("-")), 206
            self.send_response(status)
            self.send_header("Content-Type", behavior.kind)
            self.send_header("Content-Length", str(len(body) - start))
            self.send_header("ETag", behavior.etag)
            if status == 503:
                self.send_header("Retry-After", "1")
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.end_headers()
            end = start + behavior.cut.pop(0) if behavior.cut else len(body)
            for i in range(start, min(end, len(body)), 65536):
                self.wfile.write(body[i : min(i + 65536, end)])
                time.sleep(behavior.pause)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def published_file(*sources: str, sha256: str | None = SHA256, size: int | None = None) -> tuple[PublishedFile]:
    return (PublishedFile("net.pth", tuple(f"{source}/net.pth" for source in sources), sha256, size),)


def fetch_into(folder: Path, lines: list[str], files: tuple[PublishedFile, ...], options: FetchOptions = YES) -> None:
    fetch.fetch(folder, lines.append, options, files=files, policy=QUICK)


def written_files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
