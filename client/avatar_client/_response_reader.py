"""A stream's answers, read by a thread, so that who takes them may wait a bounded time, or not at all."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from ._messages import Message

AHEAD = 8  # answers that wait here; beyond them gRPC's flow control holds the server back


class ResponseReader:
    """The answers to one call, in order."""

    def __init__(self, call: Any) -> None:  # noqa: ANN401 - gRPC has no types
        """The call may be iterated by nobody else."""
        self._call = call
        self._changed = threading.Condition()
        self._messages: deque[Message] = deque()
        self._error: Exception | None = None
        self._over = self._closed = False
        threading.Thread(target=self._read, name="avatar-client-reader", daemon=True).start()

    def take(self, seconds: float | None) -> Message | None:
        """The next answer, or None when there are no more.

        Args:
            seconds: to wait for it; None: as long as it takes.

        Raises:
            TimeoutError: it has not come.
            grpc.RpcError: the call has failed, or was cancelled.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._messages or self._over, seconds):
                raise TimeoutError
            if self._messages:
                self._changed.notify_all()
                return self._messages.popleft()
            if self._error:
                raise self._error
            return None

    def close(self) -> None:
        """Cancel the call, if it has not ended; what has come and was not taken is dropped."""
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
        except Exception as raised:  # whoever takes the answers gets it
            error = raised
        with self._changed:
            self._error, self._over = error, True
            self._changed.notify_all()

    def _put(self, message: Message) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._messages) < AHEAD or self._closed)
            if not self._closed:
                self._messages.append(message)
                self._changed.notify_all()
