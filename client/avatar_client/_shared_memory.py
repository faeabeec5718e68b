"""Memory that this process and a server on its machine both see.

A region is a file of /dev/shm that is made here and mapped by the server; then its name goes, so that nothing of it
stays there, whatever ends this process. A server that cannot open it is on another machine, or in another container:
it refuses, and calls go without.
"""

from __future__ import annotations

import errno
import mmap
import os
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb

from ._connection import READY_SECONDS, Stub
from ._schema import Array

FOLDER = Path("/dev/shm")  # noqa: S108 - where the server's shm_open looks
PREFIX = "avatar-client-"
MAX_BYTES = 256 << 20  # of all regions of a client
# Seconds that a region is used for. Each has the end of its time in its name, and what is older belongs to a process
# that was killed: the next client has the server let go of it.
REGION_TTL = 600.0
REFUSAL_DELAY = 60.0  # seconds until a server that refused is asked again: it may be another one by then
RETRY_DELAY = 1.0  # the same for one that did not answer, or forgot for the first time
CLOSE_TRIES, CLOSE_PAUSE = 10, 0.1  # and seconds between them, to unregister what the server still uses
_GONE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND}


@dataclass(frozen=True, eq=False)
class Region:
    """Memory for one call at a time: UINT8 [size], under `name` at the server, to be used until `retires`."""

    name: str
    memory: NDArray[np.uint8]
    expires_at: float

    def array(self, offset: int, shape: tuple[int, ...], dtype: type[np.generic]) -> Array:
        """The bytes from `offset` on as an array: a view."""
        return np.ndarray(shape, dtype, self.memory.data, offset)


class SharedMemoryPool:
    """Regions, made when a call needs one and none is free, and kept for later ones. Any thread may use it."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._lock = threading.Lock()  # of what follows; never held while the server is asked
        self._idle: list[Region] = []
        self._held: dict[str, int] = {}  # bytes of each region that the server may know
        self._stuck: set[str] = set()  # of them, those that it would not let go of yet
        self._not_before = self._swept = self._forgot = float("-inf")
        self._closed = False

    def acquire(self, size: int) -> Region | None:
        """A region of at least `size` bytes that nobody else uses, for `give_back` or `drop`; None: go without."""
        size = _size_class(size)
        now = _boot_seconds()
        name = f"{PREFIX}{int(now + 2 * REGION_TTL) + 1}-{secrets.token_hex(16)}"  # twice: a call may begin at its end
        with self._lock:
            if self._closed or now < self._not_before:
                return None
            fit = [each for each in self._idle if each.memory.nbytes >= size and now < each.expires_at]
            chosen = min(fit, key=lambda each: each.memory.nbytes, default=None)
            unused = [each for each in self._idle if each.expires_at <= now] if chosen else self._idle
            self._idle = [each for each in self._idle if each is not chosen and each not in unused]
            stuck, self._stuck = self._stuck, set()
            if room := not chosen and sum(self._held.values()) + size <= MAX_BYTES:
                self._held[name] = size
        for old in [*(each.name for each in unused), *stuck]:  # too small ones make room for the next
            self._unregister(old)
        return self._make(name, size, now + REGION_TTL) if room else chosen

    def release(self, region: Region) -> None:
        """The call has its answer, and has copied what it wants to keep."""
        with self._lock:
            if not self._closed:
                self._idle.append(region)
                return
        self.discard(region)

    def discard(self, region: Region) -> None:
        """The call ended in any other way: the server may yet write there, so nobody else gets it."""
        self._unregister(region.name)

    def invalidate(self) -> None:
        """The server no longer knows what was registered: it restarted, or is another one."""
        now = _boot_seconds()
        with self._lock:
            again = now - self._forgot < REFUSAL_DELAY
            self._forgot, self._not_before = now, now + (REFUSAL_DELAY if again else RETRY_DELAY)
            idle, self._idle = self._idle, []
        for region in idle:
            self._unregister(region.name)

    def close(self) -> None:
        """Unregister all. What the server still uses after a second is left to its time's end."""
        with self._lock:
            self._closed = True
            self._idle.clear()
        for n in range(CLOSE_TRIES):
            if n:
                time.sleep(CLOSE_PAUSE)
            if all([self._unregister(name) for name in tuple(self._held)]):
                return

    def _make(self, name: str, size: int, retires: float) -> Region | None:
        try:
            memory = _make_file(name, size)
        except OSError:
            self._refused(name)
            return None
        ask = pb.SystemSharedMemoryRegisterRequest(name=name, key=f"/{name}", offset=0, byte_size=size)
        try:
            self._stub.SystemSharedMemoryRegister(ask, timeout=READY_SECONDS)
        except grpc.RpcError as error:
            if error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                self._not_before = _boot_seconds() + RETRY_DELAY  # it may be registered all the same
                self._unregister(name)
            else:
                self._refused(name)
            return None
        finally:
            (FOLDER / name).unlink(missing_ok=True)
        if retires - self._swept > REGION_TTL:
            self._swept = retires
            self._sweep()
        return Region(name, memory, retires)

    def _refused(self, name: str) -> None:
        with self._lock:
            self._not_before = _boot_seconds() + REFUSAL_DELAY
            del self._held[name]

    def _unregister(self, name: str) -> bool:
        """Whether the server has no such region any more."""
        try:
            self._stub.SystemSharedMemoryUnregister(_named(name), timeout=READY_SECONDS)
        except (grpc.RpcError, ValueError) as error:  # ValueError: the channel is closed
            if isinstance(error, grpc.RpcError) and error.code() not in _GONE:
                with self._lock:
                    self._stuck.add(name)
                return False
        with self._lock:
            self._held.pop(name, None)
        return True

    def _sweep(self) -> None:
        """Remove what clients left that were killed."""
        now = _boot_seconds()
        with suppress(grpc.RpcError):
            known = self._stub.SystemSharedMemoryStatus(
                pb.SystemSharedMemoryStatusRequest(), timeout=READY_SECONDS
            ).regions
            for name in filter(lambda name: _is_over(name, now), known):
                self._stub.SystemSharedMemoryUnregister(_named(name), timeout=READY_SECONDS)
        for path in FOLDER.glob(f"{PREFIX}*"):
            if _is_over(path.name, now):
                with suppress(OSError):  # another's sweep was first, or it is another user's
                    path.unlink()


def _named(name: str) -> Any:  # noqa: ANN401 - a protobuf
    return pb.SystemSharedMemoryUnregisterRequest(name=name)


def _make_file(name: str, size: int) -> NDArray[np.uint8]:
    """A new file of /dev/shm, mapped: UINT8 [size]. The mapping ends with the last array over it.

    Raises:
        OSError: there is no /dev/shm, or too little room in it.
    """
    room = os.statvfs(FOLDER)
    if room.f_bavail * room.f_frsize - size < room.f_blocks * room.f_frsize // 2:
        raise OSError(errno.ENOSPC, f"{FOLDER} is small or full")  # others live there too
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


def _size_class(size: int) -> int:
    """A size rounded up, by a quarter at most, so that calls of about the same size use the same regions."""
    step = max(1 << 18, 1 << max(0, size.bit_length() - 3))
    return -(-size // step) * step


def _boot_seconds() -> float:
    """Seconds since the machine started: the same clock in all of its containers, and nobody sets it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _is_over(name: str, now: float) -> bool:
    end = name.removeprefix(PREFIX).partition("-")[0]
    return name.startswith(PREFIX) and end.isdecimal() and int(end) < now
