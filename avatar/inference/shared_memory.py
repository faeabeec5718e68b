"""Shared memory for calls from one event loop: makes files and calls the server, as `RegionPool` decides."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Protocol

from avatar_client.region_file import boot_seconds, is_expired, make_file, remove_expired, remove_name
from avatar_client.region_pool import MAX_BYTES, UNUSED_REASONS, NewRegion, Region, RegionPool, Registration

from ..streams import start_task

logger = logging.getLogger(__name__)

PREFIX = "talking-avatar-"
CLOSE_SECONDS = 5.0  # for the server to finish the calls that were in flight at the end


class RegionRegistry(Protocol):
    """What the pool asks of the server. No method raises."""

    async def register(self, new: NewRegion) -> Registration:
        """Have the server map the file of a region."""

    async def unregister(self, name: str) -> bool:
        """Have the server release a region: whether it has none of that name now; False while calls use it."""

    async def registered(self) -> list[str]:
        """Return the names of all regions, those of other clients too; empty where the server did not answer."""

    async def close(self) -> None:
        """Close the connection."""


class SharedMemoryPool:
    """Regions of shared memory, made when a call needs one and kept for later calls. For one event loop."""

    def __init__(
        self,
        registry: RegionRegistry,
        longest_call: float,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = boot_seconds,
    ) -> None:
        """Make an empty pool; see `RegionPool` for its limits."""
        self._registry, self._clock = registry, clock
        self._regions = RegionPool(PREFIX, longest_call, max_bytes=max_bytes, clock=clock)
        self._making: set[asyncio.Task[Region | None]] = set()
        self._cleaning: set[asyncio.Task[None]] = set()
        self._works: bool | None = None
        self._closed = False

    async def acquire(self, size: int) -> Region | None:
        """Return a region of at least `size` bytes for one call, to be passed to `release` or `discard`.

        None where the call has to do without: the server does not see our memory, or the pool's limits are reached.
        """
        plan = self._regions.acquire(size)
        for name in plan.unregister:
            self._clean(self._unregister(name))
        if plan.new is None:
            return plan.region
        making = start_task(self._make(plan.new), self._making)
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(self._keep)  # the making goes on, and the region serves the next call
            raise

    def release(self, region: Region) -> None:
        """Keep a region: its call has its response, and has copied what it needs."""
        self._regions.release(region)

    def discard(self, region: Region) -> None:
        """Unregister a region whose call ended in any other way: the server may still read and write there."""
        self._clean(self._unregister(region.name))

    def invalidate(self) -> None:
        """Unregister all idle regions: the server has forgotten them, because it restarted or is another one."""
        names, again = self._regions.forgotten()
        if again:
            self._log_unused(logging.INFO, "Triton repeatedly forgets its shared memory")
        else:
            logger.info("Triton has forgotten its shared memory: it is registered again")
        for name in names:
            self._clean(self._unregister(name))

    async def close(self) -> None:
        """Unregister all regions. What the server does not release within seconds stays until its time is over."""
        self._closed = True
        self._regions.close()
        for task in self._cleaning:
            task.cancel()
        await asyncio.gather(*self._making, *self._cleaning, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(*map(self._unregister, self._regions.held))
        await self._registry.close()

    async def _make(self, new: NewRegion) -> Region | None:
        try:
            memory = await asyncio.to_thread(make_file, new.file, new.size)
        except OSError as error:
            self._regions.rejected(new.name)
            self._log_unused(logging.INFO, str(error))
            return None
        try:
            answer = await self._registry.register(new)
        finally:
            remove_name(new.file)
        if answer is Registration.UNANSWERED:
            self._regions.unanswered()
            start_task(self._unregister(new.name), self._cleaning)
            return None
        if answer is not Registration.MAPPED:
            self._regions.rejected(new.name)
            self._log_unused(*UNUSED_REASONS[answer])
            return None
        if not self._works:
            logger.info("frames are sent to Triton through shared memory")
        self._works = True
        if self._regions.sweep_due(new):
            start_task(self._sweep(), self._cleaning)
        return self._regions.registered(new, memory)

    def _log_unused(self, level: int, reason: str) -> None:
        if self._works is not False:
            logger.log(level, "frames are sent to Triton by gRPC, not through shared memory: %s", reason)
        self._works = False

    def _keep(self, making: asyncio.Task[Region | None]) -> None:
        if not making.cancelled() and not making.exception() and (region := making.result()):
            self.release(region)

    def _clean(self, work: Coroutine[object, object, None]) -> None:
        if self._closed:  # `close` unregisters all
            work.close()
        else:
            start_task(work, self._cleaning)

    async def _unregister(self, name: str) -> None:
        pause: float | None = 0.0
        while pause is not None:
            await asyncio.sleep(pause)
            pause = self._regions.unregistered(name, await self._registry.unregister(name))

    async def _sweep(self) -> None:
        """Remove what killed processes left."""
        now = self._clock()
        for name in await self._registry.registered():
            if is_expired(name, PREFIX, now):
                await self._registry.unregister(name)
        await asyncio.to_thread(remove_expired, PREFIX, now)
