"""What the running jobs of a process share: the machine's processors and memory. Each takes less where many run."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# What a job takes: always, and for each pixel of its frames (most of it in the encoder, and in the decoder of a video).
# Measured with H.264 of 480p to 1080p.
STILL_BYTES, STILL_PIXEL_BYTES = 40 << 20, 120
VIDEO_BYTES, VIDEO_PIXEL_BYTES = 120 << 20, 460

_CGROUPS = Path("/sys/fs/cgroup")
_LIMIT_FILES = ("memory.max", "memory/memory.limit_in_bytes")  # of version 2 and of version 1


class Load:
    """Counts the running jobs. For one event loop.

    Attributes:
        jobs: number of jobs that run at this moment.
    """

    def __init__(self) -> None:
        self.jobs = 0

    @contextmanager
    def job(self) -> Iterator[None]:
        """Count one job within the block."""
        self.jobs += 1
        try:
            yield
        finally:
            self.jobs -= 1

    def share(self, whole: int) -> int:
        """Return the part of `whole` that one job may take: an equal one, and at least 1."""
        return max(1, whole // max(1, self.jobs))


# Processors, Triton's queues and memory belong to the process, whoever starts its jobs: so there is one count of them.
LOAD = Load()


class MemoryBudget:
    """Bytes that the running jobs may take together. A job waits until its part is free, in the order of the calls.

    Args:
        whole: bytes in all. A job that needs more runs alone.
    """

    def __init__(self, whole: int) -> None:
        self._whole = self._free = whole
        self._queue: deque[tuple[int, asyncio.Event]] = deque()

    @property
    def free(self) -> int:
        """Bytes that no job has."""
        return self._free

    @property
    def queued(self) -> int:
        """Number of jobs that wait for their part."""
        return len(self._queue)

    @contextmanager
    def reserve(self, size: int) -> Iterator[asyncio.Event]:
        """Yield an event that is set as soon as `size` bytes are free; they are the caller's until the block ends."""
        size, turn = min(size, self._whole), asyncio.Event()
        entry = (size, turn)
        self._queue.append(entry)
        self._grant()
        try:
            yield turn
        finally:
            if entry in self._queue:
                self._queue.remove(entry)
            else:
                self._free += size
            self._grant()

    def _grant(self) -> None:
        """Give their part to the first jobs in the queue; a small job does not overtake a large one."""
        while self._queue and self._queue[0][0] <= self._free:
            size, turn = self._queue.popleft()
            self._free -= size
            turn.set()


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Return when the event is set or the time is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def job_memory(pixels: int, *, is_video: bool) -> int:
    """Return about how many bytes a job with frames of this size takes, with its ffmpegs, where many jobs run."""
    return (VIDEO_BYTES + VIDEO_PIXEL_BYTES * pixels) if is_video else (STILL_BYTES + STILL_PIXEL_BYTES * pixels)


def usable_memory(cgroups: Path = _CGROUPS) -> int:
    """Return the bytes of memory that this process may use: those of the machine, or fewer in a container."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in _LIMIT_FILES:
        with suppress(OSError, ValueError):  # no such file, or "max"
            return min(machine, int((cgroups / name).read_text()))
    return machine
