"""Run ffmpeg. No other module of this package starts processes."""

from __future__ import annotations

import asyncio
import resource
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from fcntl import F_SETPIPE_SZ, fcntl
from functools import cache
from io import FileIO
from types import TracebackType
from typing import TypeVar, cast

import imageio_ffmpeg
from async_timeout import timeout

from ..errors import AvatarError

T = TypeVar("T")

STDERR_TAIL_BYTES = 16_384  # bytes of stderr that are kept; a damaged file can cause endless messages
# Resource limits of a process, against files made to exceed them. The frames of a 100-megapixel video take a tenth of
# the memory, and a result of one hour in 4K is smaller than the file limit.
MAX_MEMORY, MAX_FILE_BYTES = 6 << 30, 32 << 30
RUN_TIMEOUT = 120.0  # seconds for a run that reads a whole file; enough for 512 MiB
STALL_TIMEOUT = 60.0  # seconds until the next frames of a video
PIPE_BYTES = 1 << 20  # a frame then passes in a few writes instead of hundreds; Linux allows 1 MiB to every user
READ_BYTES = 1 << 18  # per read if the length is unknown


class FfmpegError(AvatarError):
    """ffmpeg failed.

    Attributes:
        exit_status: the exit status; negative for the signal that ended the process.
        stderr_tail: the end of its stderr, for the log only: it contains paths of this machine.
    """

    def __init__(self, status: int, stderr_tail: str) -> None:
        super().__init__("ffmpeg could not process the media")
        self.exit_status = status
        self.stderr_tail = stderr_tail


class FfmpegTimeout(FfmpegError):
    """ffmpeg was killed because it made no progress in time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(-9, f"killed after {seconds:g} s without a result")


@cache
def executable() -> str:
    """Return the system's ffmpeg if it is new enough, otherwise the static build of imageio-ffmpeg."""
    system = shutil.which("ffmpeg")
    return system if system and _is_new_enough(system) else str(imageio_ffmpeg.get_ffmpeg_exe())


def _is_new_enough(program: str) -> bool:
    """Return whether the program supports `-fps_mode`, added in 5.1; the ffmpeg of Ubuntu 22.04 does not."""
    usage = subprocess.run([program, "-hide_banner", "-h", "long"], stdin=subprocess.DEVNULL, capture_output=True)
    return b"-fps_mode" in usage.stdout


async def run(args: Sequence[str], seconds: float = RUN_TIMEOUT) -> tuple[bytes, str]:
    """Run ffmpeg with `args` and return its stdout and the end of its stderr.

    Raises:
        FfmpegTimeout: it did not finish within `seconds`.
        FfmpegError: it failed.
    """
    async with FfmpegProcess(args) as process:
        try:
            async with timeout(seconds):
                stdout = await process.read_all()
                stderr_tail = await process.finish()
        except asyncio.TimeoutError:
            raise FfmpegTimeout(seconds) from None
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

    async def __aenter__(self) -> FfmpegProcess:
        program = await asyncio.to_thread(executable)
        self._process = subprocess.Popen(  # noqa: ASYNC220 - returns once the child runs, about a millisecond
            [program, *self._args],
            bufsize=0,
            stdin=subprocess.PIPE if self._has_stdin else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if self._has_stdin and not self._has_stdout else subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches only the service, which ends its jobs itself
        )
        for limit, most in ((resource.RLIMIT_DATA, MAX_MEMORY), (resource.RLIMIT_FSIZE, MAX_FILE_BYTES)):
            with suppress(OSError, ValueError):  # the process has ended already, or has a lower limit
                resource.prlimit(self._process.pid, limit, (most, most))
        self._pipe = cast(FileIO, self._process.stdin if self._has_stdin else self._process.stdout)
        with suppress(OSError):  # over the user's limit: the pipe keeps its 64 KiB
            fcntl(self._pipe.fileno(), F_SETPIPE_SZ, PIPE_BYTES)
        # one thread each for stderr, the pipe, and the collected stdout
        self._threads = ThreadPoolExecutor(3, thread_name_prefix="ffmpeg")
        self._ended: Future[tuple[int, str]] = self._threads.submit(self._watch)
        self._drained: Future[None] | None = self._threads.submit(self._drain) if self._has_stdout else None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        closed = self._threads.submit(self._pipe.close)  # after the read or write that the kill interrupts
        self._threads.shutdown(wait=False)
        # the threads reap and close even if this wait is cancelled
        ends: list[Future[tuple[int, str]] | Future[None]] = [self._ended, closed]
        if self._drained:
            ends.append(self._drained)
        await asyncio.shield(asyncio.gather(*(asyncio.wrap_future(end) for end in ends)))

    async def read_into(self, buffer: memoryview, seconds: float = STALL_TIMEOUT) -> int:
        """Fill `buffer` (bytes) from stdout and return the number of bytes, fewer only at the end of stdout.

        Raises:
            FfmpegTimeout: the buffer is not full after `seconds`. The process cannot be used any more.
        """
        try:
            async with timeout(seconds):
                return await self._in_thread(lambda: _fill(self._pipe, buffer))
        except asyncio.TimeoutError:
            raise FfmpegTimeout(seconds) from None

    async def read_all(self) -> bytes:
        """Read stdout to its end."""
        return await self._in_thread(lambda: b"".join(iter(lambda: self._pipe.read(READ_BYTES), b"")))

    async def write(self, data: memoryview) -> None:
        """Write `data` (bytes) to stdin; wait until ffmpeg has read it.

        Raises:
            FfmpegError: ffmpeg ended before it read everything.
        """
        try:
            await self._in_thread(lambda: _write_all(self._pipe, data))
        except BrokenPipeError:
            status, stderr_tail = await asyncio.wrap_future(self._ended)
            raise FfmpegError(status, stderr_tail) from None

    def read_available(self) -> bytes:
        """Return what was collected from stdout since the last call; after `finish`, all that remains."""
        return b"".join(self._stdout.popleft() for _ in range(len(self._stdout)))

    async def finish(self) -> str:
        """Close stdin, wait for the end of the process, and return the end of its stderr. Raises FfmpegError."""
        if self._has_stdin:
            await self._in_thread(self._pipe.close)
        status, stderr_tail = await asyncio.shield(asyncio.wrap_future(self._ended))
        if self._drained:
            await asyncio.shield(asyncio.wrap_future(self._drained))
        if status:
            raise FfmpegError(status, stderr_tail)
        return stderr_tail

    def _drain(self) -> None:
        """Drain stdout continuously so that ffmpeg never blocks on a full pipe; `read_available` empties the queue."""
        with cast(FileIO, self._process.stdout) as pipe:
            while data := pipe.read(READ_BYTES):
                self._stdout.append(data)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _watch(self) -> tuple[int, str]:
        """Read stderr and keep its end, then reap the process; runs in a thread for as long as the process."""
        tail = b""
        with cast(FileIO, self._process.stderr) as pipe:
            while data := pipe.read(STDERR_TAIL_BYTES):
                tail = (tail + data)[-STDERR_TAIL_BYTES:]
        return self._process.wait(), tail.decode(errors="replace").strip()


def _fill(pipe: FileIO, buffer: memoryview) -> int:
    filled = 0
    while filled < len(buffer) and (got := pipe.readinto(buffer[filled:])):
        filled += got
    return filled


def _write_all(pipe: FileIO, data: memoryview) -> None:
    while data:
        data = data[pipe.write(data) :]
