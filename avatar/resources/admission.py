"""Who may work, who waits, and who is sent away."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from ..errors import Busy, ShuttingDown


class Jobs:
    """At most `at_once` jobs run, at most `waiting` requests beside them are let in, first come first served.

    A place is taken when the request arrives, before its files are read: so the places bound the disk
    that uploads take, too. A turn is taken when the files are there, so a slow upload keeps no job from
    running.
    """

    def __init__(self, at_once: int, waiting: int) -> None:
        self._at_once = at_once
        self._places = at_once + waiting
        self._let_in = 0
        self._running = 0
        self._line: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self.stopped = asyncio.Event()  # set when running jobs must end

    @property
    def running(self) -> int:
        """Jobs that have their turn now."""
        return self._running

    @property
    def in_line(self) -> int:
        """Requests that wait for their turn, their files read."""
        return len(self._line)

    @property
    def closed(self) -> bool:
        """Whether nobody is let in any more."""
        return self._closed

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among those let in. Raises Busy when all are taken, ShuttingDown after `close`."""
        if self._closed:
            raise ShuttingDown("the service is being stopped")
        if self._let_in >= self._places:
            raise Busy(f"{self._let_in} requests are running or waiting; try again later")
        self._let_in += 1
        try:
            yield
        finally:
            self._let_in -= 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A turn to work, in the order of asking. Raises ShuttingDown when `close` comes first."""
        await self._wait_in_line()
        try:
            yield
        finally:
            self._pass_on()

    def close(self, grace: float) -> None:
        """Send away who waits, let nobody in, and set `stopped` after `grace` seconds."""
        if self._closed:
            return
        self._closed = True
        for waiter in self._line:
            if not waiter.done():
                waiter.set_exception(ShuttingDown("the service is being stopped"))
        self._line.clear()
        asyncio.get_running_loop().call_later(grace, self.stopped.set)

    async def _wait_in_line(self) -> None:
        if self._closed:
            raise ShuttingDown("the service is being stopped")
        if self._running < self._at_once:  # then nobody is in line: `_pass_on` empties it first
            self._running += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                if waiter in self._line:
                    self._line.remove(waiter)
            elif waiter.exception() is None:  # the turn came at the same moment: hand it on
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._line:
            waiter = self._line.popleft()
            if not waiter.done():
                waiter.set_result(None)  # `_running` stays: the turn changes hands
                return
        self._running -= 1
