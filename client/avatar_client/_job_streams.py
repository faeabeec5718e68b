"""What a job sends for a while: its events and its video, each over one connection after the other."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from hashlib import sha256
from typing import BinaryIO

from . import _job_events
from ._errors import Unavailable
from ._http import BLOCK_BYTES, FETCHING, RECONNECT_SECONDS, OnProgress
from ._job_records import JobEvent
from ._jobs_http import Transport, current, left_of

_SILENCE_SECONDS = 60.0  # after which a connection counts as lost: the stream of events has a comment every 15 s


class Watcher:
    """The event stream of a job, over one connection after the other."""

    def __init__(self, transport: Transport, path: str, after: str | None, deadline: float | None) -> None:
        self._transport, self._path, self._last, self._deadline = transport, path, after, deadline
        self._events: Generator[JobEvent, None, None] | None = None
        self.received = 0
        self.ended = False

    def next(self) -> JobEvent | None:
        """Return the next event; None where the stream has none, which `ended` says. Raises AvatarClientError."""
        if self._events is None:
            self._events = self._connect()
        try:
            event = next(self._events, None)
        except BaseException:
            self._events = None
            raise
        if event is None:
            self._events = None
            if not self.ended:  # the server ends the stream when it is stopped
                self._check_deadline()
                raise Unavailable("the service ended the stream of events", retry_after=RECONNECT_SECONDS)
            return None
        self.received += 1
        self._last = event.id or self._last
        self.ended = event.is_final
        return event

    def close(self) -> None:
        """Close the connection."""
        if self._events is not None:
            self._events.close()

    def _connect(self) -> Generator[JobEvent, None, None]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self._last} if self._last else {})
        self._check_deadline()
        with self._transport.get(f"{self._path}/events", headers) as (response, connected):
            if response.status == 204:
                self.ended = True
                return

            def lines() -> Iterator[bytes]:
                while True:
                    connected.silence(left_of(self._deadline, _SILENCE_SECONDS))
                    try:
                        line = response.readline()
                    except TimeoutError:
                        self._check_deadline()
                        raise
                    if not line:
                        return
                    self._check_deadline()
                    yield line

            yield from _job_events.parse(lines())

    def _check_deadline(self) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise Unavailable("the job did not end in time", 504)


class Download:
    """The bytes of a video, over one connection after the other."""

    def __init__(self, transport: Transport, path: str, file: BinaryIO, on_progress: OnProgress) -> None:
        self._transport, self._path, self._file = transport, f"{path}/result", file
        self._on_progress = on_progress
        self._etag = ""
        self.received = 0
        self.digest = sha256()

    def go_on(self) -> None:
        """Fetch what is missing. Raises AvatarClientError, OSError."""
        headers = {"Range": f"bytes={self.received}-"} if self.received else {}
        if self.received and self._etag:
            headers["If-Range"] = self._etag
        with self._transport.get(self._path, headers) as (response, _):
            if response.status != 206 and self.received:
                self._start_again()
            self._etag = response.headers.get("ETag", "")
            length = response.headers.get("Content-Length", "")
            total = self.received + int(length) if length.isdecimal() else None
            while piece := response.read(BLOCK_BYTES):
                current().check()
                self._file.write(piece)
                self.digest.update(piece)
                self.received += len(piece)
                self._on_progress(FETCHING, self.received, total)
        if total is not None and self.received < total:
            reason = f"the response ended after {self.received} of {total} bytes"
            raise Unavailable(reason, retry_after=RECONNECT_SECONDS)

    def _start_again(self) -> None:
        """Forget what arrived: the server sends all of it. Raises OSError where it went to a pipe."""
        self._file.seek(0)
        self._file.truncate()
        self.received, self.digest = 0, sha256()
