"""Job queue: limits running and queued jobs, rejects the rest."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from ..errors import Busy, ShuttingDown
from ..tracing import span


class Admission:
    """Runs at most `max_running` jobs and admits at most `max_queued` more requests, first come, first served.

    A request is admitted when it arrives, before its files are read: so the limit also bounds the disk space of
    uploads. It takes a slot once its files are complete, so a slow upload keeps no job from running.

    Attributes:
        stopped: set when running jobs must end.
    """

    def __init__(self, max_running: int, max_queued: int) -> None:
        self._max_running = max_running
        self._max_admitted = max_running + max_queued
        self._admitted = 0
        self._running = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self._draining = False
        self.stopped = asyncio.Event()

    @property
    def running(self) -> int:
        """Number of jobs that have a slot."""
        return self._running

    @property
    def queued(self) -> int:
        """Number of requests that wait for a slot; their files are complete."""
        return len(self._queue)

    @property
    def closed(self) -> bool:
        """Whether all new requests are rejected."""
        return self._closed

    @property
    def draining(self) -> bool:
        """Whether callers are to look for another process; requests are accepted until `closed`."""
        return self._draining or self._closed

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count the request as admitted within the block.

        Raises:
            Busy: the limit of running and queued requests is reached.
            ShuttingDown: `close` was called.
        """
        if self._closed:
            raise ShuttingDown()
        if self._admitted >= self._max_admitted:
            raise Busy(f"limit of {self._max_admitted} running and queued requests reached; try again later")
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a slot, in the order of the calls, and hold it within the block. In a trace, the wait is a span.

        Raises:
            ShuttingDown: `close` was called before a slot was free.
        """
        with span("queue"):
            await self._acquire()
        try:
            yield
        finally:
            self._release()

    def drain(self) -> None:
        """Set `draining`: `close` follows."""
        self._draining = True

    def close(self, grace: float) -> None:
        """Reject queued and new requests, and set `stopped` after `grace` seconds."""
        if self._closed:
            return
        self._closed = True
        for waiter in self._queue:
            if not waiter.done():
                waiter.set_exception(ShuttingDown())
        self._queue.clear()
        asyncio.get_running_loop().call_later(grace, self.stopped.set)

    async def _acquire(self) -> None:
        if self._closed:
            raise ShuttingDown()
        if self._running < self._max_running:  # then the queue is empty: `_release` empties it first
            self._running += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                if waiter in self._queue:
                    self._queue.remove(waiter)
            elif waiter.exception() is None:  # the slot was assigned at the same moment: pass it on
                self._release()
            raise

    def _release(self) -> None:
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(None)  # `_running` does not change: the slot passes to the next request
                return
        self._running -= 1
