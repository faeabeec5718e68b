"""The messages that wait for a caller to take them in: bounded in bytes and in time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass

from avatar.errors import ClientError

MAX_BYTES = 8 << 20  # that wait; then the model is not read until the caller has read


class SlowCaller(ClientError):
    """The caller does not read, or not as fast as frames are made."""

    status = 408
    code = "slow_caller"


@dataclass(frozen=True)
class _Waiting:
    data: bytes | str
    is_frame: bool
    since: float


class Outbox:
    """A queue of messages. One task puts, another one takes.

    Args:
        patience: seconds that a message may wait.
        max_bytes: that wait; a single larger message is accepted.
    """

    def __init__(self, patience: float, max_bytes: int = MAX_BYTES) -> None:
        self._patience, self._max_bytes = patience, max_bytes
        self._messages: deque[_Waiting] = deque()
        self._size = 0
        self._is_finished = False
        self._changed = asyncio.Condition()

    async def put(self, data: bytes | str, *, is_frame: bool = False) -> None:
        """Add a message; wait while too much waits already."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._messages or self._size + len(data) <= self._max_bytes)
            self._messages.append(_Waiting(data, is_frame, time.monotonic()))
            self._size += len(data)
            self._changed.notify_all()

    async def take(self) -> bytes | str | None:
        """Return the next message; None after the end. Raises SlowCaller if it has waited for too long."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._messages or self._is_finished)
            if not self._messages:
                return None
            message = self._messages.popleft()
            self._size -= len(message.data)
            self._changed.notify_all()
        if time.monotonic() - message.since > self._patience:
            raise slow_caller(self._patience)
        return message.data

    async def drop_frames(self) -> None:
        """Remove the frames that were not taken yet."""
        async with self._changed:
            self._messages = deque(each for each in self._messages if not each.is_frame)
            self._size = sum(len(each.data) for each in self._messages)
            self._changed.notify_all()

    async def finish(self) -> None:
        """Add the end."""
        async with self._changed:
            self._is_finished = True
            self._changed.notify_all()


def slow_caller(seconds: float) -> SlowCaller:
    """Return the error of a caller whose messages have waited for so long."""
    return SlowCaller(f"the session was ended: its messages were not read for {seconds:g} s; read them while they come")
