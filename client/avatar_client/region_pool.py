"""Which region of shared memory a call uses: the decisions, without input or output. Not for callers of the client.

A region is a file of /dev/shm that this process makes and the server maps; then the file's name is removed, so that no
file stays, however this process ends. A server that cannot open the file, because it is on another machine or in
another container, rejects it, and calls send their arrays by gRPC. A caller who can name a region can read it through
the server, so the name is a secret. It is not the name of the file, which other users can see for a moment.
docs/adr/0014-shared-memory.md gives the reasons.

`RegionPool` decides; its users make files and call the server: `_shared_memory` here, for threads, and the service's
`avatar.inference.shared_memory`, for asyncio.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .region_file import boot_seconds

MAX_REGIONS, MAX_BYTES = 64, 256 << 20
# Seconds that a region is used for. The end of its time is part of its name, and one whose time is over belongs to a
# process that was killed: so it can be unregistered before the server restarts, without knowing which processes live.
REGION_TTL = 600.0
REFUSAL_DELAY = 60.0  # seconds until a server that rejected a region is asked again: it may be another one by then
RETRY_DELAY = 1.0  # the same for a server that did not answer, or has forgotten its regions for the first time
IN_USE_PAUSES = (0.05, 1.0)  # seconds between two attempts to unregister what the server still uses: first, and at most


@dataclass(frozen=True, eq=False)
class Region:
    """Memory for one call at a time: UINT8 [size], known to the server as `name`, to be used until `expires_at`."""

    name: str
    memory: NDArray[np.uint8]
    expires_at: float

    def array(self, offset: int, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
        """Return the bytes from `offset` on as an array: a view."""
        return np.ndarray(shape, dtype, self.memory.data, offset)


@dataclass(frozen=True)
class NewRegion:
    """A region to be made: `file` of /dev/shm, to be registered at the server as `name`."""

    name: str
    file: str
    size: int
    expires_at: float


class Registration(Enum):
    """What the server did with a new region."""

    MAPPED = "mapped"
    INVISIBLE = "it cannot open the file"
    RESTRICTED = "it requires a token, and none was sent"
    DENIED = "it requires another token"
    DISABLED = "it was started without shared memory"
    UNANSWERED = "it did not say"

    @classmethod
    def of_error(cls, status: str, message: str, *, with_token: bool) -> Registration:
        """Return what a failed call means.

        Args:
            status: name of its gRPC status. A missing token is UNAVAILABLE, as a server that is gone: only the message
                tells them apart. Where the message changes, the server counts as one that does not answer.
            message: its text.
            with_token: whether the call sent a token.
        """
        if status == "UNAVAILABLE" and "restricted" in message:
            return cls.DENIED if with_token else cls.RESTRICTED
        if status == "UNIMPLEMENTED":
            return cls.DISABLED
        return cls.UNANSWERED if status in _OUTCOME_UNKNOWN else cls.INVISIBLE


_OUTCOME_UNKNOWN = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"}  # the server may have done it or not
# Level and reason to log where calls do without shared memory; a warning where the operator has to change something.
UNUSED_REASONS = {
    Registration.INVISIBLE: (logging.INFO, "Triton does not see this process's memory"),
    Registration.RESTRICTED: (
        logging.INFO,
        "Triton requires a token for it; set AVATAR_TRITON_TOKEN or AVATAR_TRITON_TOKEN_FILE",
    ),
    Registration.DENIED: (
        logging.WARNING,
        "Triton does not accept the token; AVATAR_TRITON_TOKEN must be the token that Triton was started with",
    ),
    Registration.DISABLED: (
        logging.WARNING,
        "Triton was started without it; add --allow-client-shm=true, or set AVATAR_TRITON_SHARED_MEMORY=off",
    ),
}


@dataclass(frozen=True)
class Plan:
    """What to do for a call: use `region`, or make `new`, or, with neither, do without shared memory.

    In each case the regions named in `unregister` are to be unregistered.
    """

    region: Region | None = None
    new: NewRegion | None = None
    unregister: tuple[str, ...] = ()


class RegionPool:
    """Regions that are made when a call needs one, and kept for later calls. Not thread-safe."""

    def __init__(
        self,
        prefix: str,
        longest_call: float,
        *,
        max_bytes: int = MAX_BYTES,
        max_regions: int = MAX_REGIONS,
        evict_smaller: bool = False,
        clock: Callable[[], float] = boot_seconds,
    ) -> None:
        """Make an empty pool.

        Args:
            prefix: what the names of its regions begin with.
            longest_call: seconds that a call may take.
            max_bytes: limit for all regions, including those that the server still uses.
            max_regions: limit for their number.
            evict_smaller: a new region replaces all that are idle and smaller. Right for a caller that makes one call
                at a time; one that makes calls of several sizes in turn keeps them.
            clock: seconds of a clock that all processes of the machine share.
        """
        self._prefix, self._longest_call, self._clock = prefix, longest_call, clock
        self._max_bytes, self._max_regions, self._evict_smaller = max_bytes, max_regions, evict_smaller
        self._idle: list[Region] = []  # the last one was used last
        # bytes of every region, from its making until the server has released it, or (24.12 and newer) says that it
        # does so when its requests are done
        self._held: dict[str, int] = {}
        self._stuck: dict[str, tuple[float, float]] = {}  # still in use at the server: next pause, end of attempts
        self._not_before = self._swept_at = self._forgotten_at = float("-inf")
        self._closed = False

    @property
    def paused(self) -> bool:
        """Whether calls do without shared memory now."""
        return self._closed or self._clock() < self._not_before

    @property
    def held(self) -> tuple[str, ...]:
        """Names of all regions that the server may know."""
        return tuple(self._held)

    @property
    def stuck(self) -> tuple[str, ...]:
        """Names of the regions that the server would not release yet."""
        return tuple(self._stuck)

    def acquire(self, size: int) -> Plan:
        """Decide what a call does that needs `size` bytes. Its region has to come back by `release` or `discard`."""
        if self.paused:
            return Plan()
        now = self._clock()
        evicted = [each for each in self._idle if each.expires_at <= now]
        self._idle = [each for each in self._idle if each.expires_at > now]
        if fitting := [each for each in self._idle if each.memory.nbytes >= size]:
            region = min(fitting, key=lambda each: each.memory.nbytes)
            self._idle.remove(region)
            return Plan(region=region, unregister=_names(evicted))
        if self._evict_smaller:
            evicted += self._idle
            self._idle = []
        size = size_class(size)
        if not self._has_room(size):
            if self._idle and size <= self._max_bytes:
                evicted.append(self._idle.pop(0))  # so that a later call finds room
            return Plan(unregister=_names(evicted))
        end = int(now + REGION_TTL + self._longest_call) + 1  # a call may start at the end of a region's time
        name, file = (f"{self._prefix}{end}-{secrets.token_hex(16)}" for _ in range(2))
        new = NewRegion(name, file, size, now + REGION_TTL)
        self._held[new.name] = size
        return Plan(new=new, unregister=_names(evicted))

    def registered(self, new: NewRegion, memory: NDArray[np.uint8]) -> Region:
        """Return the region: its file was made, and the server has mapped it."""
        return Region(new.name, memory, new.expires_at)

    def rejected(self, name: str) -> None:
        """Pause: the file could not be made, or the server did not map it."""
        self._held.pop(name, None)
        self._pause(REFUSAL_DELAY)

    def unanswered(self) -> None:
        """Pause shortly: the server did not say whether it has mapped a region, which is to be unregistered."""
        self._pause(RETRY_DELAY)

    def sweep_due(self, new: NewRegion) -> bool:
        """Return whether it is time to remove what killed processes left: once per `REGION_TTL`."""
        if new.expires_at - self._swept_at <= REGION_TTL:
            return False
        self._swept_at = new.expires_at
        return True

    def release(self, region: Region) -> bool:
        """Keep a region for the next call: its call has its response, and has copied what it needs.

        Returns:
            False after `close`: then it is to be unregistered.
        """
        if not self._closed:
            self._idle.append(region)
        return not self._closed

    def forgotten(self) -> tuple[tuple[str, ...], bool]:
        """Pause: the server no longer knows its regions, because it restarted or is another one.

        Returns:
            names to unregister, and whether the server has forgotten twice within a minute. It may be several servers
            behind a load balancer, and counts as one that rejects.
        """
        now = self._clock()
        again = now - self._forgotten_at < REFUSAL_DELAY
        self._forgotten_at = now
        self._pause(REFUSAL_DELAY if again else RETRY_DELAY)
        names = _names(self._idle)
        self._idle = []
        return names, again

    def unregistered(self, name: str, done: bool) -> float | None:
        """Take the result of an attempt to unregister a region.

        Returns:
            seconds until the next attempt; None where no other is needed. After `REGION_TTL` there is none: another
            process unregisters the region when the time in its name is over.
        """
        now = self._clock()
        pause, end = self._stuck.get(name, (IN_USE_PAUSES[0], now + REGION_TTL))
        if done or now >= end:
            self._stuck.pop(name, None)
            self._held.pop(name, None)
            return None
        self._stuck[name] = (min(2 * pause, IN_USE_PAUSES[1]), end)
        return pause

    def close(self) -> None:
        """Make and keep no more regions; all that are `held` are to be unregistered."""
        self._closed = True
        self._idle = []

    def _has_room(self, size: int) -> bool:
        return len(self._held) < self._max_regions and sum(self._held.values()) + size <= self._max_bytes

    def _pause(self, seconds: float) -> None:
        self._not_before = self._clock() + seconds


def size_class(size: int) -> int:
    """Return a size rounded up, by a quarter at most, so that calls of about the same size use the same regions."""
    step = max(1 << 18, 1 << max(0, size.bit_length() - 3))
    return -(-size // step) * step


def _names(regions: list[Region]) -> tuple[str, ...]:
    return tuple(region.name for region in regions)
