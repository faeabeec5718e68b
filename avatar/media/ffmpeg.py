"""Run ffmpeg. No other module of this package starts processes.

A failure is one of two kinds. `FfmpegError`: ffmpeg ended by itself with an error, or was busy until the deadline; the
file may be the cause, or the machine (`diagnosis` tells them apart). `MachineFault`: it was killed from outside, cannot
be started, or waited until the deadline without using the processor; the file is not the cause.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from fcntl import F_SETPIPE_SZ, fcntl
from functools import cache
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import TypeVar, cast

import imageio_ffmpeg

from ..errors import FfmpegFault
from ..faults import machine_fault
from .ffmpeg_errors import MAX_FILE_BYTES, failure, named_fault, start_fault
from .ffmpeg_errors import FfmpegError as FfmpegError
from .ffmpeg_errors import FfmpegTimeout as FfmpegTimeout

T = TypeVar("T")
logger = logging.getLogger("avatar")

STDERR_TAIL_BYTES = 16_384  # bytes of stderr that are kept; a damaged file can cause endless messages
# Resource limits of a process, against files made to exceed them: this one, and MAX_FILE_BYTES. The frames of a
# 100-megapixel video take a tenth of the memory.
MAX_MEMORY = 6 << 30
RUN_TIMEOUT = 120.0  # seconds for a run that reads a whole file; enough for 512 MiB
STALL_TIMEOUT = 60.0  # seconds until the next frames of a video, and until the encoder accepts a frame
END_TIMEOUT = 600.0  # seconds for the encoder to write what it holds, and an MP4 again with its index first
USAGE_TIMEOUT = 10.0  # seconds for ffmpeg to print its usage
# A process that uses less of one processor than this before its deadline is stopped, starved or waits for a disk.
BUSY_SHARE = 0.1
REAP_SECONDS = 1.0  # for a killed process to end, where the wait for it was cancelled
PIPE_BYTES = 1 << 20  # a frame then passes in a few writes instead of hundreds; Linux allows 1 MiB to every user
# Linux's number of the clock of a process's processor time, after its inverted id: see clock_getcpuclockid(3).
_CPU_CLOCK = 2
READ_BYTES = 1 << 18  # per read if the length is unknown


@cache
def executable() -> str:
    """Return the system's ffmpeg if it works and is new enough, otherwise the static build of imageio-ffmpeg.

    Raises:
        FfmpegFault: there is neither.
    """
    system = shutil.which("ffmpeg")
    if system and _is_new_enough(system):
        return system
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise FfmpegFault("ffmpeg is not installed") from error


def identity() -> str:
    """Return what tells this ffmpeg from another one: its path, size and time. Raises as `executable`."""
    path = Path(executable())
    try:
        status = path.stat()
    except OSError as error:
        executable.cache_clear()  # as where it cannot be started
        raise start_fault(error) from error
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def _is_new_enough(program: str) -> bool:
    """Return whether the program supports `-fps_mode`, added in 5.1; the ffmpeg of Ubuntu 22.04 does not."""
    command = [program, "-hide_banner", "-h", "long"]
    try:
        usage = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=USAGE_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("the system's ffmpeg is not used: %s", error)
        return False
    return b"-fps_mode" in usage.stdout


async def run(args: Sequence[str], seconds: float = RUN_TIMEOUT) -> tuple[bytes, str]:
    """Run ffmpeg with `args` and return its stdout and the end of its stderr.

    Raises:
        FfmpegTimeout: it was busy for `seconds` and did not finish.
        FfmpegError: it failed.
        MachineFault: it cannot be started, was killed, or did nothing for `seconds`.
    """
    async with FfmpegProcess(args) as process, process.deadline(seconds):
        stdout = await process.read_all()
        stderr_tail = await process.finish()
    return stdout, stderr_tail


class FfmpegProcess:
    """A running ffmpeg: `async with FfmpegProcess(args) as process`.

    Leaving the block always kills the process if it still runs, and reaps it. Threads of the object read and write the
    pipes directly from and into the caller's memory: the event loop never copies a frame, and waiting for ffmpeg
    occupies no thread of the default executor.
    """

    def __init__(self, args: Sequence[str], *, stdin: bool = False, stdout: bool = False) -> None:
        """Prepare the process.

        Args:
            args: of ffmpeg, without the program.
            stdin: open a pipe to stdin, for `write`; otherwise the pipe is stdout, for `read_into` and `read_all`.
            stdout: with `stdin`, collect stdout too, for `read_available`.
        """
        self._args = args
        self._has_stdin, self._has_stdout = stdin, stdout
        self._stdout: deque[bytes] = deque()
        self._stderr_tail = b""

    async def __aenter__(self) -> FfmpegProcess:
        # a thread only to find out: where others work, the way there and back takes milliseconds
        program = executable() if executable.cache_info().currsize else await asyncio.to_thread(executable)
        try:
            self._process = self._start(program)
        except OSError as error:
            executable.cache_clear()  # the program may have been replaced
            raise start_fault(error) from error
        for limit, most in ((resource.RLIMIT_DATA, MAX_MEMORY), (resource.RLIMIT_FSIZE, MAX_FILE_BYTES)):
            with suppress(OSError, ValueError):  # the process has ended already
                _lower_limit(self._process.pid, limit, most)
        self._pipe = cast(FileIO, self._process.stdin if self._has_stdin else self._process.stdout)
        with suppress(OSError):  # over the user's limit: the pipe keeps its 64 KiB
            fcntl(self._pipe.fileno(), F_SETPIPE_SZ, PIPE_BYTES)
        # one thread each for stderr, the pipe, and the collected stdout
        self._threads = ThreadPoolExecutor(3, thread_name_prefix="ffmpeg")
        try:
            self._ended: Future[tuple[int, str]] = self._threads.submit(self._watch)
            self._drained: Future[None] | None = self._threads.submit(self._drain) if self._has_stdout else None
        except RuntimeError as error:  # no thread can be started
            self._abandon()
            raise machine_fault(error) or error from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()
        closed = self._threads.submit(self._pipe.close)  # after the read or write that the kill interrupts
        self._threads.shutdown(wait=False)
        # the threads reap and close even if this wait is cancelled
        ends: list[Future[tuple[int, str]] | Future[None]] = [self._ended, closed]
        if self._drained:
            ends.append(self._drained)
        ended = asyncio.gather(*(asyncio.wrap_future(end) for end in ends))
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:  # a second time: a process that was killed has ended in milliseconds
            until = time.monotonic() + REAP_SECONDS
            while not ended.done() and (seconds := until - time.monotonic()) > 0:
                with suppress(asyncio.CancelledError):  # once more, by another layer above
                    await asyncio.wait((ended,), timeout=seconds)
            raise

    async def read_into(self, buffer: memoryview, seconds: float = STALL_TIMEOUT) -> int:
        """Fill `buffer` (bytes) from stdout and return the number of bytes, fewer only at the end of stdout.

        Raises:
            FfmpegTimeout, FfmpegFault: the buffer is not full after `seconds`. The process cannot be used any more.
        """
        async with self.deadline(seconds):
            return await self._in_thread(lambda: _fill(self._pipe, buffer))

    async def read_all(self) -> bytes:
        """Read stdout to its end."""
        return await self._in_thread(lambda: b"".join(iter(lambda: self._pipe.read(READ_BYTES), b"")))

    async def write(self, *data: memoryview, seconds: float = STALL_TIMEOUT) -> None:
        """Write `data` (bytes each) to stdin; wait until ffmpeg has read it.

        Raises:
            FfmpegError, MachineFault: ffmpeg ended, or was killed, before it read everything.
            FfmpegTimeout, FfmpegFault: it did not read everything within `seconds` for each.
        """
        async with self.deadline(seconds * len(data)):
            with suppress(BrokenPipeError):
                await self._in_thread(lambda: _write_all(self._pipe, data))
                return
            raise failure(*await asyncio.wrap_future(self._ended))

    def read_available(self) -> bytes:
        """Return what was collected from stdout since the last call; after `finish`, all that remains."""
        return b"".join(self._stdout.popleft() for _ in range(len(self._stdout)))

    def has_logged(self, text: bytes) -> bool:
        """Return whether the end of stderr, as far as it was read, contains `text`."""
        return text in self._stderr_tail

    async def finish(self, seconds: float = END_TIMEOUT) -> str:
        """Close stdin, wait for the end of the process, and return the end of its stderr. Raises as `run`."""
        async with self.deadline(seconds):
            if self._has_stdin:
                await self._in_thread(self._pipe.close)
            status, stderr_tail = await asyncio.shield(asyncio.wrap_future(self._ended))
            if self._drained:
                await asyncio.shield(asyncio.wrap_future(self._drained))
        if status:
            raise failure(status, stderr_tail)
        if fault := named_fault(stderr_tail):
            raise fault
        return stderr_tail

    @asynccontextmanager
    async def deadline(self, seconds: float) -> AsyncIterator[None]:
        """Raise FfmpegTimeout if the block takes longer than `seconds`, or FfmpegFault if ffmpeg was not busy then."""
        cpu_before = self._cpu_seconds()
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            cpu_seconds = self._cpu_seconds() - cpu_before
            timeout = FfmpegTimeout(seconds, cpu_seconds)
            if cpu_seconds < seconds * BUSY_SHARE:
                raise FfmpegFault("ffmpeg makes no progress") from timeout
            raise timeout from None

    def _start(self, program: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [program, *self._args],
            bufsize=0,
            stdin=subprocess.PIPE if self._has_stdin else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if self._has_stdin and not self._has_stdout else subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches only the service, which ends its jobs itself
        )

    def _kill(self) -> None:
        """Kill the process, and a program that it has started: a script may stand in for ffmpeg."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _abandon(self) -> None:
        """Kill and reap the process in this thread, where no other can be started."""
        self._kill()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()
        self._process.wait()
        self._threads.shutdown(wait=False)

    def _cpu_seconds(self) -> float:
        """Return the processor time that the process has used; 0 after its end."""
        try:
            return time.clock_gettime(~self._process.pid << 3 | _CPU_CLOCK)
        except OSError:
            return 0.0

    def _drain(self) -> None:
        """Drain stdout continuously so that ffmpeg never blocks on a full pipe; `read_available` empties the queue."""
        with cast(FileIO, self._process.stdout) as pipe:
            while data := pipe.read(READ_BYTES):
                self._stdout.append(data)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _watch(self) -> tuple[int, str]:
        """Read stderr and keep its end, then reap the process; runs in a thread for as long as the process."""
        with cast(FileIO, self._process.stderr) as pipe:
            while data := pipe.read(STDERR_TAIL_BYTES):
                self._stderr_tail = (self._stderr_tail + data)[-STDERR_TAIL_BYTES:]
        return self._process.wait(), self._stderr_tail.decode(errors="replace").strip()


def _fill(pipe: FileIO, buffer: memoryview) -> int:
    filled = 0
    while filled < len(buffer) and (got := pipe.readinto(buffer[filled:])):
        filled += got
    return filled


def _write_all(pipe: FileIO, data: Sequence[memoryview]) -> None:
    for part in data:
        rest = part
        while rest:
            rest = rest[pipe.write(rest) :]


def _lower_limit(pid: int, which: int, most: int) -> None:
    """Limit a resource of a process to `most`, or to less where the process already has a lower limit."""
    lowered = (most if value == resource.RLIM_INFINITY else min(value, most) for value in resource.prlimit(pid, which))
    soft, hard = lowered
    resource.prlimit(pid, which, (soft, hard))
