"""Reads a stream's responses in a thread, so that their consumer can wait a limited time, or not at all."""

from __future__ import annotations

import threading
from collections import deque

from ._kserve import StreamCall, StreamResponse

BUFFER_SIZE = 8  # responses that wait here; beyond them gRPC's flow control slows the server down


class ResponseReader:
    """The responses to one call, in order."""

    def __init__(self, call: StreamCall) -> None:
        """Start to read; nothing else may iterate the call."""
        self._call = call
        self._changed = threading.Condition()
        self._messages: deque[StreamResponse] = deque()
        self._error: Exception | None = None
        self._ended = self._closed = False
        threading.Thread(target=self._read, name="avatar-client-reader", daemon=True).start()

    def take(self, seconds: float | None) -> StreamResponse | None:
        """Return the next response, or None when there are no more.

        Args:
            seconds: to wait for it; None waits without a limit.

        Raises:
            TimeoutError: none came in time.
            grpc.RpcError: the call failed, or was cancelled.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._messages or self._ended, seconds):
                raise TimeoutError
            if self._messages:
                self._changed.notify_all()
                return self._messages.popleft()
            if self._error:
                raise self._error
            return None

    def close(self) -> None:
        """Cancel the call if it has not ended, and drop the responses that were not taken."""
        with self._changed:
            self._closed = True
            self._messages.clear()
            self._changed.notify_all()
        self._call.cancel()

    def _read(self) -> None:
        error = None
        try:
            for message in self._call:
                self._put(message)
        except Exception as raised:  # `take` raises it
            error = raised
        with self._changed:
            self._error, self._ended = error, True
            self._changed.notify_all()

    def _put(self, message: StreamResponse) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._messages) < BUFFER_SIZE or self._closed)
            if not self._closed:
                self._messages.append(message)
                self._changed.notify_all()
