"""Runs ffmpeg: the one place where this package starts processes."""

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
from typing import Any, TypeVar, cast

import imageio_ffmpeg
from async_timeout import timeout

from ..errors import AvatarError

T = TypeVar("T")

WORDS = 16_384  # bytes of a process's last words that are kept; a broken file can make ffmpeg talk without end
# What a process may take; a file can be made to ask for more. The frames of a 100-megapixel video take a tenth of the
# memory, and one result of an hour in 4K takes less than the bytes.
MEMORY, FILE_BYTES = 6 << 30, 32 << 30
SECONDS = 120.0  # for what is read of a file as a whole; two minutes go far with 512 MiB
STALL_SECONDS = 60.0  # until the next frames of a video
PIPE = 1 << 20  # bytes; a frame crosses in a few pieces instead of hundreds. What Linux grants to any user
BLOCK = 1 << 18  # bytes read at a time where the length is not known


class FfmpegFailed(AvatarError):
    """ffmpeg ended badly. Its own words are for the log: they hold paths of this machine."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__("the media could not be processed")
        self.exit_status = status  # negative: the signal that ended it
        self.words = words


class TookTooLong(FfmpegFailed):
    """ffmpeg was ended because it did not get on."""

    def __init__(self, seconds: float) -> None:
        super().__init__(-9, f"ended after {seconds:g} s without a result")


@cache
def executable() -> str:
    """The system's ffmpeg where there is one that is new enough, the static one of imageio-ffmpeg otherwise."""
    system = shutil.which("ffmpeg")
    return system if system and _is_new_enough(system) else str(imageio_ffmpeg.get_ffmpeg_exe())


def _is_new_enough(program: str) -> bool:
    """Whether it knows `-fps_mode`, which came with 5.1; the ffmpeg of Ubuntu 22.04 does not."""
    told = subprocess.run([program, "-hide_banner", "-h", "long"], stdin=subprocess.DEVNULL, capture_output=True)
    return b"-fps_mode" in told.stdout


async def output(args: Sequence[str], seconds: float = SECONDS) -> tuple[bytes, str]:
    """All that ffmpeg with `args` writes to its stdout, and its last words.

    Raises:
        TookTooLong: it was not done after `seconds`.
        FfmpegFailed: it ended badly.
    """
    async with Process(args) as process:
        try:
            async with timeout(seconds):
                said = await process.read_all()
                words = await process.finish()
        except asyncio.TimeoutError:  # noqa: UP041 - another class in Python 3.10
            raise TookTooLong(seconds) from None
    return said, words


class Process:
    """A running ffmpeg with one pipe or two, to be used as `async with Process(args) as process`.

    Leaving the block, for whatever reason, kills the process where it still runs and reaps it. The pipe
    is read and written by a thread of the process's own, straight from and into the caller's memory: the
    event loop never copies a frame, and waiting for ffmpeg takes no thread from those that do the work.
    """

    def __init__(self, args: Sequence[str], *, fed: bool = False, tapped: bool = False) -> None:
        """`fed`: the pipe is its stdin, or else its stdout; `tapped`: it is fed, and `taken` has its stdout."""
        self._args = args
        self._fed, self._tapped = fed, tapped
        self._said: deque[bytes] = deque()

    async def __aenter__(self) -> Process:
        program = await asyncio.to_thread(executable)
        self._process = subprocess.Popen(  # noqa: ASYNC220 - returns once the child runs, about a millisecond
            [program, *self._args],
            bufsize=0,
            stdin=subprocess.PIPE if self._fed else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if self._fed and not self._tapped else subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C in the terminal is for the service, which ends its jobs itself
        )
        for limit, most in ((resource.RLIMIT_DATA, MEMORY), (resource.RLIMIT_FSIZE, FILE_BYTES)):
            with suppress(OSError, ValueError):  # it has ended already, or runs under a lower limit
                resource.prlimit(self._process.pid, limit, (most, most))
        self._pipe = cast(FileIO, self._process.stdin if self._fed else self._process.stdout)
        with suppress(OSError):  # over the user's allowance: the usual 64 KiB then
            fcntl(self._pipe.fileno(), F_SETPIPE_SZ, PIPE)
        # the watcher, the pipe, and the tap
        self._threads = ThreadPoolExecutor(3, thread_name_prefix="ffmpeg")
        self._ended: Future[tuple[int, str]] = self._threads.submit(self._watch)
        self._drained: Future[None] | None = self._threads.submit(self._drain) if self._tapped else None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        closed = self._threads.submit(self._pipe.close)  # waits for a read or write that the kill has ended
        self._threads.shutdown(wait=False)
        # the threads reap and close even where this wait is cancelled
        ends: list[Future[Any]] = [self._ended, closed, *([self._drained] if self._drained else [])]
        await asyncio.shield(asyncio.gather(*(asyncio.wrap_future(end) for end in ends)))

    async def read_into(self, room: memoryview, seconds: float = STALL_SECONDS) -> int:
        """Fill `room` (bytes) from stdout; gives the number of bytes, less than asked only at the end.

        Raises:
            TookTooLong: it is not full after `seconds`. The process is of no use then.
        """
        try:
            async with timeout(seconds):
                return await self._in_thread(lambda: _fill(self._pipe, room))
        except asyncio.TimeoutError:  # noqa: UP041 - another class in Python 3.10
            raise TookTooLong(seconds) from None

    async def read_all(self) -> bytes:
        """Everything up to the end of stdout."""
        return await self._in_thread(lambda: b"".join(iter(lambda: self._pipe.read(BLOCK), b"")))

    async def write(self, data: memoryview) -> None:
        """Write `data` (bytes) to stdin, at the pace at which ffmpeg takes it.

        Raises:
            FfmpegFailed: it ended before it had taken everything.
        """
        try:
            await self._in_thread(lambda: _pour(self._pipe, data))
        except BrokenPipeError:
            status, words = await asyncio.wrap_future(self._ended)
            raise FfmpegFailed(status, words) from None

    def taken(self) -> bytes:
        """What it has written to its tapped stdout since the last time; after `finish`, all the rest."""
        return b"".join(self._said.popleft() for _ in range(len(self._said)))

    async def finish(self) -> str:
        """Wait for the end, closing stdin first; gives its last words. Raises FfmpegFailed where it ended badly."""
        if self._fed:
            await self._in_thread(self._pipe.close)
        status, words = await asyncio.shield(asyncio.wrap_future(self._ended))
        if self._drained:
            await asyncio.shield(asyncio.wrap_future(self._drained))
        if status:
            raise FfmpegFailed(status, words)
        return words

    def _drain(self) -> None:
        """Take what comes out, so that it never waits for us; who writes frames takes it as often as that."""
        with cast(FileIO, self._process.stdout) as pipe:
            while said := pipe.read(BLOCK):
                self._said.append(said)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _watch(self) -> tuple[int, str]:
        """Keep the tail of stderr, then reap; runs in a thread from the process's start to its end."""
        words = b""
        with cast(FileIO, self._process.stderr) as pipe:
            while said := pipe.read(WORDS):
                words = (words + said)[-WORDS:]
        return self._process.wait(), words.decode(errors="replace").strip()


def _fill(pipe: FileIO, room: memoryview) -> int:
    filled = 0
    while filled < len(room) and (got := pipe.readinto(room[filled:])):
        filled += got
    return filled


def _pour(pipe: FileIO, data: memoryview) -> None:
    while data:
        data = data[pipe.write(data) :]
