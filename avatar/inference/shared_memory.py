"""Memory that this process and a server on its machine both see: a bounded pool of regions for large arrays.

A region is a file of /dev/shm that we make and the server maps; then its name goes, so that nothing of it can stay
there, whatever ends this process. A server that cannot open the file, for it is on another machine or in another
container, refuses, and calls go without. Why it is so: docs/adr/0014-shared-memory.md
"""

from __future__ import annotations

import asyncio
import errno
import logging
import mmap
import os
import secrets
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from async_timeout import timeout
from numpy.typing import DTypeLike, NDArray

logger = logging.getLogger(__name__)
T = TypeVar("T")

FOLDER = Path("/dev/shm")  # noqa: S108 - where shm_open looks
PREFIX = "talking-avatar-"
MAX_REGIONS, MAX_BYTES = 64, 256 << 20
# Seconds that a region is used for. Each has the end of its time in its name, and what is older belongs to a process
# that was killed: so the server need not keep that until it restarts, and nobody has to know who lives.
REGION_TTL = 600.0
REFUSAL_DELAY = 60.0  # seconds until a server that refused is asked again: it may be another one by then
RETRY_DELAY = 1.0  # the same for one that did not answer, or forgot; forgetting again at once, as servers behind a
# balancer seem to, counts as a refusal
IN_USE_PAUSES = (0.05, 1.0)  # seconds between two tries to unregister what the server still uses: first, and at most
CLOSE_SECONDS = 5.0  # for the server to finish with what was under way at the end


class RegionRegistry(Protocol):
    """What the pool asks of the server. Nothing is raised."""

    async def register(self, name: str, size: int) -> bool | None:
        """Map the file `name` of /dev/shm, `size` bytes: whether it did, None where there was no answer."""

    async def unregister(self, name: str) -> bool:
        """Let go of a region: whether it did, or has none of that name; False while requests use it."""

    async def registered(self) -> list[str]:
        """Names of all regions, those of other clients too; empty where there is no answer."""

    async def close(self) -> None:
        """Let go of the connection."""


@dataclass(frozen=True, eq=False)
class Region:
    """Memory for one call at a time: UINT8 [size], under `name` at the server, to be used until `retires`."""

    name: str
    memory: NDArray[np.uint8]
    expires_at: float

    def array(self, offset: int, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """The bytes from `offset` on as an array: a view."""
        return np.ndarray(shape, dtype, self.memory.data, offset)


def boot_seconds() -> float:
    """Seconds since the machine started: the same clock in all of its containers, and nobody sets it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SharedMemoryPool:
    """Regions made when they are needed and kept for the next call. To be used from one event loop."""

    def __init__(
        self,
        server: RegionRegistry,
        longest: float,
        most_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = boot_seconds,
    ) -> None:
        """`longest`: seconds that a call may take; `most_bytes`: of all regions, those the server still uses too."""
        self._server, self._longest, self._most_bytes, self._clock = server, longest, most_bytes, clock
        self._idle: list[Region] = []  # the one used last stands last
        self._held: dict[str, int] = {}  # bytes of every region, from its making until the server let go of it
        self._making: set[asyncio.Task[Any]] = set()
        self._dropping: set[asyncio.Task[Any]] = set()
        self._not_before = self._swept = self._lost_at = float("-inf")
        self._works: bool | None = None
        self._closed = False

    async def acquire(self, size: int) -> Region | None:
        """A region of at least `size` bytes that nobody else uses, to be handed to `give_back` or `drop`.

        None where the call has to go without: the server does not see our memory, or the pool is at its bounds.
        """
        now = self._clock()
        if self._closed or now < self._not_before:
            return None
        for region in [each for each in self._idle if each.expires_at < now]:
            self._idle.remove(region)
            self.discard(region)
        if fitting := [each for each in self._idle if each.memory.nbytes >= size]:
            region = min(fitting, key=lambda each: each.memory.nbytes)
            self._idle.remove(region)
            return region
        size = size_class(size)
        if not self._has_room(size):
            return None
        name = f"{PREFIX}{int(now + REGION_TTL + self._longest) + 1}-{secrets.token_hex(16)}"
        self._held[name] = size
        made = _start(self._make(name, size, now + REGION_TTL), self._making)
        try:
            return await asyncio.shield(made)
        except asyncio.CancelledError:
            made.add_done_callback(self._keep)  # half made it is nobody's; it goes on, and is the next one's
            raise

    def release(self, region: Region) -> None:
        """The call has its answer, and has copied what it wants to keep."""
        if not self._closed:
            self._idle.append(region)

    def discard(self, region: Region) -> None:
        """The call ended in any other way: the server may yet read and write there, so nobody else gets it."""
        if not self._closed:
            _start(self._unregister(region.name), self._dropping)

    def invalidate(self) -> None:
        """The server no longer knows what was registered: it restarted, or is another one."""
        now = self._clock()
        if now - self._lost_at < REFUSAL_DELAY:
            self._refused("Triton forgets what was registered")
        else:
            logger.info("Triton has forgotten its shared memory: it is registered anew")
            self._not_before = now + RETRY_DELAY
        self._lost_at = now
        while self._idle:
            self.discard(self._idle.pop())

    async def close(self) -> None:
        """Unregister all. What the server does not let go of within seconds is left to its time's end."""
        self._closed = True
        self._idle.clear()
        for task in self._dropping:
            task.cancel()
        await asyncio.gather(*self._making, *self._dropping, return_exceptions=True)
        with suppress(asyncio.TimeoutError):
            async with timeout(CLOSE_SECONDS):
                await asyncio.gather(*map(self._unregister, tuple(self._held)))
        await self._server.close()

    def _has_room(self, size: int) -> bool:
        """Whether one more may be made; if not, unused ones go, so that a later call finds room."""
        missing = sum(self._held.values()) + size - self._most_bytes
        if missing <= 0 and len(self._held) < MAX_REGIONS:
            return True
        if size <= self._most_bytes and self._idle:
            self.discard(self._idle.pop(0))
        return False

    async def _make(self, name: str, size: int, retires: float) -> Region | None:
        try:
            memory = await asyncio.to_thread(make_file, name, size)
        except OSError as error:
            self._refused(str(error))
            del self._held[name]
            return None
        try:
            known = await self._server.register(name, size)
        finally:
            (FOLDER / name).unlink(missing_ok=True)
        if known is None:  # it may be registered all the same
            self._not_before = self._clock() + RETRY_DELAY
            _start(self._unregister(name), self._dropping)
            return None
        if not known:
            self._refused("Triton does not see this process's memory")
            del self._held[name]
            return None
        if not self._works:
            logger.info("frames go to Triton through shared memory")
        self._works = True
        if retires - self._swept > REGION_TTL:
            self._swept = retires
            _start(self._sweep(), self._dropping)
        return Region(name, memory, retires)

    def _refused(self, why: str) -> None:
        self._not_before = self._clock() + REFUSAL_DELAY
        if self._works is not False:
            logger.info("frames go to Triton by gRPC, not through shared memory: %s", why)
        self._works = False

    def _keep(self, made: asyncio.Task[Region | None]) -> None:
        if not made.cancelled() and not made.exception() and (region := made.result()):
            self.release(region)

    async def _unregister(self, name: str) -> None:
        pause, longest = IN_USE_PAUSES
        end = self._clock() + REGION_TTL
        while not await self._server.unregister(name) and self._clock() < end:
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
        self._held.pop(name, None)

    async def _sweep(self) -> None:
        """Remove what processes left that were killed."""
        now = self._clock()
        for name in await self._server.registered():
            if _is_over(name, now):
                await self._server.unregister(name)
        await asyncio.to_thread(_remove_names, now)


def size_class(size: int) -> int:
    """A size rounded up, by a quarter at most, so that calls of about the same size use the same regions."""
    step = max(1 << 18, 1 << max(0, size.bit_length() - 3))
    return -(-size // step) * step


def make_file(name: str, size: int) -> NDArray[np.uint8]:
    """A new file of /dev/shm, mapped: UINT8 [size]. The mapping ends with the last array over it.

    Raises:
        OSError: there is no /dev/shm, or too little room in it.
    """
    room = os.statvfs(FOLDER)
    if room.f_bavail * room.f_frsize - size < room.f_blocks * room.f_frsize // 2:
        raise OSError(errno.ENOSPC, f"{FOLDER} is small or full")  # Triton's Python models live there too
    path = FOLDER / name
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        os.posix_fallocate(file, 0, size)  # or a full /dev/shm would kill whoever writes, by SIGBUS
        return np.frombuffer(mmap.mmap(file, size), np.uint8)
    except BaseException:
        path.unlink()
        raise
    finally:
        os.close(file)


def _remove_names(now: float) -> None:
    for path in FOLDER.glob(f"{PREFIX}*"):
        if _is_over(path.name, now):
            with suppress(OSError):  # another's sweep was first, or it is another user's
                path.unlink()


def _is_over(name: str, now: float) -> bool:
    end = name.removeprefix(PREFIX).partition("-")[0]
    return name.startswith(PREFIX) and end.isdecimal() and int(end) < now


def _start(work: Coroutine[Any, Any, T], tasks: set[asyncio.Task[Any]]) -> asyncio.Task[T]:
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task
