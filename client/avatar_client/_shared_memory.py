"""Shared memory for calls from threads: makes files and calls the server, as `RegionPool` decides."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

import grpc
from tritonclient.grpc import service_pb2 as pb

from ._connection import READY_SECONDS
from ._kserve import Stub
from .region_file import boot_seconds, is_expired, make_file, remove_expired, remove_name
from .region_pool import MAX_BYTES, REGION_TTL, NewRegion, Region, RegionPool

PREFIX = "avatar-client-"
CLOSE_TRIES, CLOSE_PAUSE = 10, 0.1  # attempts, and seconds between them, to unregister what the server still uses
_UNREACHABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND}
_OUTCOME_UNKNOWN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


class RegionRegistry(Protocol):
    """What the pool asks of the server. No method raises."""

    def register(self, name: str, size: int) -> bool | None:
        """Have the server map the file `name` of /dev/shm: whether it did, None where it did not answer."""

    def unregister(self, name: str) -> bool:
        """Have the server release a region: whether it has none of that name now; False while calls use it."""

    def registered(self) -> list[str]:
        """Return the names of all regions, those of other clients too; empty where the server did not answer."""


class SharedMemoryPool:
    """Regions of shared memory, made when a call needs one and kept for later calls. Thread-safe."""

    def __init__(
        self,
        registry: RegionRegistry,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Make an empty pool; see `RegionPool` for its limits."""
        self._registry, self._clock = registry, clock or boot_seconds
        # a client has no limit for the time of a call; most clients make one call at a time
        self._regions = RegionPool(PREFIX, REGION_TTL, max_bytes=max_bytes, evict_smaller=True, clock=self._clock)
        self._lock = threading.Lock()  # of `_regions`; never held while the server is called

    def acquire(self, size: int) -> Region | None:
        """Return a region of at least `size` bytes for one call, to be passed to `release` or `discard`.

        None where the call has to do without: the server does not see our memory, or the pool's limits are reached.
        """
        with self._lock:
            plan = self._regions.acquire(size)
            stuck = () if self._regions.paused else self._regions.stuck
        for name in (*plan.unregister, *stuck):
            self._unregister(name)
        return self._make(plan.new) if plan.new else plan.region

    def release(self, region: Region) -> None:
        """Keep a region: its call has its response, and has copied what it needs."""
        with self._lock:
            kept = self._regions.release(region)
        if not kept:
            self._unregister(region.name)

    def discard(self, region: Region) -> None:
        """Unregister a region whose call ended in any other way: the server may still write to it."""
        self._unregister(region.name)

    def invalidate(self) -> None:
        """Unregister all idle regions: the server has forgotten them, because it restarted or is another one."""
        with self._lock:
            names, _ = self._regions.forgotten()
        for name in names:
            self._unregister(name)

    def close(self) -> None:
        """Unregister all regions. What the server still uses after a second stays until its time is over."""
        with self._lock:
            self._regions.close()
        for n in range(CLOSE_TRIES):
            if n:
                time.sleep(CLOSE_PAUSE)
            if all([self._unregister(name) for name in self._regions.held]):
                return

    def _make(self, new: NewRegion) -> Region | None:
        try:
            memory = make_file(new.name, new.size)
        except OSError:
            with self._lock:
                self._regions.rejected(new.name)
            return None
        try:
            answer = self._registry.register(new.name, new.size)
        finally:
            remove_name(new.name)
        with self._lock:
            if answer is None:
                self._regions.unanswered()
            elif not answer:
                self._regions.rejected(new.name)
            region = self._regions.registered(new, memory) if answer else None
            sweep = region is not None and self._regions.sweep_due(new)
        if answer is None:
            self._unregister(new.name)
        if sweep:
            self._sweep()
        return region

    def _unregister(self, name: str) -> bool:
        done = self._registry.unregister(name)
        with self._lock:
            return self._regions.unregistered(name, done) is None

    def _sweep(self) -> None:
        """Remove what killed processes left."""
        now = self._clock()
        for name in self._registry.registered():
            if is_expired(name, PREFIX, now):
                self._registry.unregister(name)
        remove_expired(PREFIX, now)


class GrpcRegionRegistry:
    """Implements `RegionRegistry` over gRPC."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub

    def register(self, name: str, size: int) -> bool | None:
        """As `RegionRegistry`."""
        request = pb.SystemSharedMemoryRegisterRequest(name=name, key=f"/{name}", offset=0, byte_size=size)
        try:
            self._stub.SystemSharedMemoryRegister(request, timeout=READY_SECONDS)
        except grpc.RpcError as error:
            return None if error.code() in _OUTCOME_UNKNOWN else False
        except ValueError:  # the channel is closed
            return None
        return True

    def unregister(self, name: str) -> bool:
        """As `RegionRegistry`."""
        try:
            self._stub.SystemSharedMemoryUnregister(
                pb.SystemSharedMemoryUnregisterRequest(name=name), timeout=READY_SECONDS
            )
        except grpc.RpcError as error:
            return error.code() in _UNREACHABLE  # a server that is gone has released it
        except ValueError:  # the channel is closed
            return True
        return True

    def registered(self) -> list[str]:
        """As `RegionRegistry`."""
        try:
            status = self._stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest(), timeout=READY_SECONDS)
        except (grpc.RpcError, ValueError):
            return []
        return list(status.regions)
