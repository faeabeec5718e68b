"""The same job over HTTP: post the form to the gateway, from files on disk."""

from __future__ import annotations

import http.client
import json
import re
import secrets
import select
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import BinaryIO
from urllib.parse import SplitResult, urlsplit

from ._errors import RETRY_AFTER, AvatarClientError, InvalidRequest, ServerError, Unavailable, from_status
from ._files import atomic_write
from ._schema import BACKGROUND_FILE, FACE_FILE, SPEECH_FILE

CONNECT_SECONDS = 30.0
RECONNECT_SECONDS = 1.0  # before a request that did not reach the server is repeated
BLOCK_BYTES = 1 << 16  # of an upload or a response that are moved at once
POLL_SECONDS = 0.2  # between two checks whether the response has started, each of which reports progress
SENDING, WAITING, FETCHING = "upload", "waiting", "download"
_TIMING = re.compile(r"([^;,\s]+);dur=([0-9.]+)")
_ESCAPED = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})  # as browsers do it

# Called with the stage, how much of it is done, and its total (None where unknown): in bytes, or seconds of waiting.
OnProgress = Callable[[str, int, "int | None"], None]


@dataclass(frozen=True)
class PostResult:
    """What the headers of the response say about the video."""

    frames: int | None
    stand_ins: str
    container: str
    notes: tuple[str, ...] = ()
    without_face: int | None = None
    encoder: str = ""
    decoder: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)  # by stage
    ignored: str = ""  # fields that the service does not know

    @classmethod
    def of(cls, headers: Message) -> PostResult:
        """Read the headers of the response."""

        def number(name: str) -> int | None:
            text = headers.get(name, "")
            return int(text) if text.isdecimal() else None

        return cls(
            number("X-Avatar-Frames"),
            headers.get("X-Avatar-Stand-Ins", ""),
            "webm" if headers.get_content_subtype() == "webm" else "mp4",
            tuple(filter(None, headers.get("X-Avatar-Notes", "").split("; "))),
            number("X-Avatar-Frames-Without-Face"),
            headers.get("X-Avatar-Encoder", ""),
            headers.get("X-Avatar-Decoder", ""),
            {name: round(float(ms) / 1000, 4) for name, ms in _TIMING.findall(headers.get("Server-Timing", ""))},
            headers.get("X-Avatar-Ignored-Fields", ""),
        )


def post(
    url: str,
    fields: Mapping[str, str],
    files: Mapping[str, Path],
    out: Path,
    timeout: float,
    on_progress: OnProgress = lambda stage, done, total: None,
    key: str = "",
) -> PostResult:
    """Post the form, and write the response to `out`, which is complete or stays as it was.

    No proxy is used, as for Triton: the service is reached at its address.

    Args:
        url: `http://host:port`, or https.
        fields: text by name.
        files: paths by name.
        timeout: seconds without a byte, in each direction; it also limits the work, during which nothing is sent.
        key: the API key, if the service needs one.

    Raises:
        AvatarClientError: the service rejected the form, with its sentence, or the response is incomplete.
        OSError: a file cannot be read or written.
        ValueError: `url` is not a URL.
    """
    form = MultipartForm(fields, files)
    with atomic_write(out) as file, closing(connect(url)) as connection:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        response = exchange(connection, urlsplit(url).path.rstrip("/") + "/", form, timeout, on_progress, headers)
        try:
            if response.status != http.client.OK:
                raise refusal(response)
            _fetch(response, file, on_progress)
        except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
            raise Unavailable(f"{url} ended its response early: {error!r}") from error
    return PostResult.of(response.headers)


class MultipartForm:
    """A multipart form whose files are read from disk while it is sent; its length is known in advance."""

    def __init__(self, fields: Mapping[str, str], files: Mapping[str, Path | bytes]) -> None:
        """Read the sizes of the files that are given by their paths. Raises OSError where a file does not exist."""
        self.boundary = secrets.token_hex(16)
        self._parts: list[bytes | tuple[Path, int]] = []
        for name, value in fields.items():
            self._parts += [self._head(name), value.encode(), b"\r\n"]
        for name, path in files.items():
            if isinstance(path, bytes):
                self._parts += [self._head(name, name), path, b"\r\n"]
                continue
            with path.open("rb") as file:
                size = file.seek(0, 2)
            self._parts += [self._head(name, path.name), (path, size), b"\r\n"]
        self._parts.append(f"--{self.boundary}--\r\n".encode())
        self.length = sum(len(part) if isinstance(part, bytes) else part[1] for part in self._parts)

    def _head(self, name: str, file: str | None = None) -> bytes:
        of_file = "" if file is None else f'; filename="{file.translate(_ESCAPED)}"'
        kind = "" if file is None else "Content-Type: application/octet-stream\r\n"
        head = f'--{self.boundary}\r\nContent-Disposition: form-data; name="{name}"{of_file}\r\n{kind}\r\n'
        return head.encode(errors="replace")

    def blocks(self) -> Iterator[bytes]:
        """Yield its bytes. Raises OSError where a file became shorter meanwhile."""
        for part in self._parts:
            if isinstance(part, bytes):
                yield part
                continue
            path, left = part
            with path.open("rb") as file:
                while left:
                    piece = file.read(min(BLOCK_BYTES, left))
                    if not piece:
                        raise OSError(f"{path} became shorter while it was sent")
                    left -= len(piece)
                    yield piece


def check_url(url: str) -> SplitResult:
    """Return the parts of the gateway's URL. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"http://host:port expected, got {url!r}")
    return parts


def connect(url: str) -> http.client.HTTPConnection:
    """Return an open connection. Raises Unavailable, ValueError."""
    parts = check_url(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=CONNECT_SECONDS)
    try:
        connection.connect()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Unavailable(f"{url} cannot be reached: {reason}", retry_after=RECONNECT_SECONDS) from error
    return connection


def exchange(
    connection: http.client.HTTPConnection,
    path: str,
    form: MultipartForm,
    timeout: float,
    on_progress: OnProgress,
    more_headers: Mapping[str, str],
) -> http.client.HTTPResponse:
    """Post a form and return the start of the response. Raises Unavailable, OSError."""

    def with_progress() -> Iterator[bytes]:
        sent = 0
        for piece in form.blocks():
            yield piece
            sent += len(piece)
            on_progress(SENDING, sent, form.length)

    connection.sock.settimeout(timeout)
    kind = f"multipart/form-data; boundary={form.boundary}"
    headers = {"Content-Type": kind, "Content-Length": str(form.length), "Accept": "*/*", **more_headers}
    try:
        try:
            connection.request("POST", path, with_progress(), headers)
        except (BrokenPipeError, ConnectionResetError):
            pass  # rejected before its end, for example because of its size: the response may have arrived
        else:
            _wait(connection, timeout, on_progress)
        return connection.getresponse()
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise no_response(f"{connection.host}:{connection.port}", error) from error


def no_response(where: str, error: Exception) -> AvatarClientError:
    """Return what it means that a server at `where` did not send a response of HTTP."""
    if isinstance(error, http.client.BadStatusLine) and "\x00" in str(error):
        return InvalidRequest(
            f"{where} speaks gRPC, not HTTP: it is Triton's port for gRPC; the gateway is usually on port 16000"
        )
    return Unavailable(f"{where} did not respond: {error!r}", retry_after=RECONNECT_SECONDS)


def _wait(connection: http.client.HTTPConnection, timeout: float, on_progress: OnProgress) -> None:
    """Wait until the first byte of the response can be read. Raises TimeoutError."""
    begin = time.monotonic()
    while not select.select([connection.sock], [], [], POLL_SECONDS)[0]:
        waited = time.monotonic() - begin
        if waited > timeout:
            raise TimeoutError(f"nothing for {timeout:g} s")
        on_progress(WAITING, int(waited), None)


def _fetch(response: http.client.HTTPResponse, file: BinaryIO, on_progress: OnProgress) -> None:
    length = response.headers.get("Content-Length", "")
    total, got = (int(length) if length.isdecimal() else None), 0
    while piece := response.read(BLOCK_BYTES):
        got += len(piece)
        file.write(piece)
        on_progress(FETCHING, got, total)
    if total is not None and got != total:
        raise Unavailable(f"the response ended after {got} of {total} bytes")


def refusal(response: http.client.HTTPResponse) -> AvatarClientError:
    """Return the error that a response means whose status is not one of success."""
    body = response.read(BLOCK_BYTES).decode(errors="replace")
    error_code = ""
    try:
        problem = json.loads(body)
        detail, error_code = problem["detail"], str(problem.get("code", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        detail = " ".join(body.split())[:200] or response.reason
        if response.status in (http.client.NOT_FOUND, http.client.METHOD_NOT_ALLOWED):
            detail += _elsewhere(body)
    after = response.headers.get("Retry-After", "")
    if response.status < 400:
        return ServerError(f"not a response of this service: {response.status} {response.reason}")
    error = from_status(response.status, str(detail), float(after) if after.isdecimal() else RETRY_AFTER)
    error.error_code = error_code
    return error


def _elsewhere(body: str) -> str:
    """Return what to do about a server that does not know the form, and does not answer as the gateway does."""
    triton = '{"error":' in body.replace(" ", "")
    who = "this is Triton's port for HTTP" if triton else "this is not an answer of the gateway"
    return f" ({who}; the gateway is usually on port 16000)"


def form_of(face: Path, speech: Path, background_file: Path | None) -> dict[str, Path]:
    """Return the files of the form by field."""
    files = {FACE_FILE: face, SPEECH_FILE: speech}
    return files | ({BACKGROUND_FILE: background_file} if background_file else {})
