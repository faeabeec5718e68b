"""Who may work, who waits, and who is sent away."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from ..errors import Busy, ShuttingDown


class Admission:
    """At most `at_once` jobs run, at most `waiting` requests beside them are let in, first come first served.

    A place is taken when the request arrives, before its files are read: so the places bound the disk
    that uploads take, too. A turn is taken when the files are there, so a slow upload keeps no job from
    running.
    """

    def __init__(self, max_running: int, max_queued: int) -> None:
        self._max_running = max_running
        self._max_admitted = max_running + max_queued
        self._admitted = 0
        self._running = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self.stopped = asyncio.Event()  # set when running jobs must end

    @property
    def running(self) -> int:
        """Jobs that have their turn now."""
        return self._running

    @property
    def queued(self) -> int:
        """Requests that wait for their turn, their files read."""
        return len(self._queue)

    @property
    def closed(self) -> bool:
        """Whether nobody is let in any more."""
        return self._closed

    @contextmanager
    def admit(self) -> Iterator[None]:
        """A place among those let in. Raises Busy when all are taken, ShuttingDown after `close`."""
        if self._closed:
            raise ShuttingDown("the service is being stopped")
        if self._admitted >= self._max_admitted:
            raise Busy(f"{self._admitted} requests are running or waiting; try again later")
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """A turn to work, in the order of asking. Raises ShuttingDown when `close` comes first."""
        await self._acquire()
        try:
            yield
        finally:
            self._release()

    def close(self, grace: float) -> None:
        """Send away who waits, let nobody in, and set `stopped` after `grace` seconds."""
        if self._closed:
            return
        self._closed = True
        for waiter in self._queue:
            if not waiter.done():
                waiter.set_exception(ShuttingDown("the service is being stopped"))
        self._queue.clear()
        asyncio.get_running_loop().call_later(grace, self.stopped.set)

    async def _acquire(self) -> None:
        if self._closed:
            raise ShuttingDown("the service is being stopped")
        if self._running < self._max_running:  # then nobody is in line: `_pass_on` empties it first
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
            elif waiter.exception() is None:  # the turn came at the same moment: hand it on
                self._release()
            raise

    def _release(self) -> None:
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(None)  # `_running` stays: the turn changes hands
                return
        self._running -= 1
