"""Shared memory for calls from threads: makes files and calls the server, as `RegionPool` decides."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb

from ._connection import READY_SECONDS
from ._kserve import Stub
from .access import Token
from .region_file import boot_seconds, is_expired, make_file, remove_expired, remove_name
from .region_pool import MAX_BYTES, REGION_TTL, UNUSED_REASONS, NewRegion, Region, RegionPool, Registration

logger = logging.getLogger(__name__)

PREFIX = "avatar-client-"
CLOSE_TRIES, CLOSE_PAUSE = 10, 0.1  # attempts, and seconds between them, to unregister what the server still uses
_UNREACHABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND}


class RegionRegistry(Protocol):
    """What the pool asks of the server. No method raises."""

    def register(self, new: NewRegion) -> Registration:
        """Have the server map the file of a region."""

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
        self._unused: str | None = None  # the last reason that was logged

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
            memory = make_file(new.file, new.size)
        except OSError as error:
            with self._lock:
                self._regions.rejected(new.name)
            self._log_unused(logging.INFO, str(error))
            return None
        try:
            answer = self._registry.register(new)
        finally:
            remove_name(new.file)
        if answer is Registration.MAPPED:
            return self._registered(new, memory)
        with self._lock:
            if answer is Registration.UNANSWERED:
                self._regions.unanswered()
            else:
                self._regions.rejected(new.name)
        if answer is Registration.UNANSWERED:
            self._unregister(new.name)
        else:
            self._log_unused(*UNUSED_REASONS[answer])
        return None

    def _registered(self, new: NewRegion, memory: NDArray[np.uint8]) -> Region:
        with self._lock:
            region = self._regions.registered(new, memory)
            sweep = self._regions.sweep_due(new)
        self._unused = None
        if sweep:
            self._sweep()
        return region

    def _log_unused(self, level: int, reason: str) -> None:
        if self._unused != reason:
            logger.log(level, "arrays are sent to Triton by gRPC, not through shared memory: %s", reason)
        self._unused = reason

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
    """Implements `RegionRegistry` over gRPC, with the token that the server requires."""

    def __init__(self, stub: Stub, token: Token) -> None:
        self._stub, self._token = stub, token

    def register(self, new: NewRegion) -> Registration:
        """As `RegionRegistry`."""
        metadata = self._token.metadata()
        request = pb.SystemSharedMemoryRegisterRequest(name=new.name, key=f"/{new.file}", offset=0, byte_size=new.size)
        try:
            self._stub.SystemSharedMemoryRegister(request, timeout=READY_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            return Registration.of_error(error.code().name, str(error.details()), with_token=bool(metadata))
        except ValueError:  # the channel is closed
            return Registration.UNANSWERED
        return Registration.MAPPED

    def unregister(self, name: str) -> bool:
        """As `RegionRegistry`."""
        request = pb.SystemSharedMemoryUnregisterRequest(name=name)
        try:
            self._stub.SystemSharedMemoryUnregister(request, timeout=READY_SECONDS, metadata=self._token.metadata())
        except grpc.RpcError as error:
            return error.code() in _UNREACHABLE  # a server that is gone has released it
        except ValueError:  # the channel is closed
            return True
        return True

    def registered(self) -> list[str]:
        """As `RegionRegistry`."""
        request = pb.SystemSharedMemoryStatusRequest()
        try:
            status = self._stub.SystemSharedMemoryStatus(
                request, timeout=READY_SECONDS, metadata=self._token.metadata()
            )
        except (grpc.RpcError, ValueError):
            return []
        return list(status.regions)
