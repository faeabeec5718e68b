"""Encode and decode a built-in clip, to learn whether ffmpeg works on this machine."""

from __future__ import annotations

import asyncio
import io
import time
import wave
from collections.abc import Awaitable, Callable
from fractions import Fraction
from pathlib import Path

import numpy as np

from lipsync.mel import SAMPLE_RATE
from lipsync.yuv import to_yuv420

from ..errors import FfmpegFault, MachineFault
from ..faults import machine_fault
from ..options import Quality
from . import ffmpeg, ffmpeg_args
from .memory_file import memory_file

TEST_SECONDS = 10.0  # deadline of the test, which takes a third of a second on an idle machine
START_SECONDS = 60.0  # the same when a process starts: the disk may be cold, and every model starts at the same time
PASS_SECONDS = 60.0  # a test that passed counts for so long, unless the caller asks for a later one
FAILURE_SECONDS = 5.0  # a test that failed counts for so long
FAILED = "ffmpeg cannot encode and decode the built-in test clip"
# The clip: gray frames, and a tone
WIDTH, HEIGHT, FRAMES, GRAY = 64, 48, 5, 160
FORMAT = ffmpeg_args.VideoFormat(WIDTH, HEIGHT, Fraction(25))
SAMPLES = SAMPLE_RATE // 5
AMPLITUDE = 0.5
MAX_PIXELS = 1_000_000

Test = Callable[[], Awaitable[None]]


class SelfTest:
    """Runs the test at most once at a time, and remembers its result for a while."""

    def __init__(self, test: Test) -> None:
        self._test = test
        self._task: asyncio.Task[None] | None = None  # running
        self._started = -1.0  # when the running test was started
        self._passed = -1.0  # when the last test that passed was started
        self._failure: MachineFault | None = None  # result of the last test
        self._failed = -1.0  # when it failed

    @property
    def failure(self) -> MachineFault | None:
        """Return the fault that the last test found, or None if it passed."""
        return self._failure

    async def check(self, max_age: float = PASS_SECONDS) -> None:
        """Return if ffmpeg works: by a test that was started at most `max_age` seconds ago, else by a new one.

        Raises:
            MachineFault: it does not work. A failure that is at most FAILURE_SECONDS old counts without a new test.
        """
        since = time.monotonic() - max_age
        while self._passed < since or self._failure:
            if self._failure and time.monotonic() - self._failed < FAILURE_SECONDS:
                raise copy_of(self._failure) from self._failure.__cause__
            await asyncio.shield(self._running())

    async def check_failing(self) -> None:
        """Return at once, unless the last test failed: then test again. Raises MachineFault."""
        if self._failure:
            await self.check()

    def remember_pass(self) -> None:
        """Take a test that was run elsewhere, and passed just now, as the last one."""
        self._failure, self._passed = None, time.monotonic()

    def forget(self) -> None:
        """Forget all results: the next check runs the test."""
        self._passed, self._failure = -1.0, None

    def _running(self) -> asyncio.Task[None]:
        """Return the task of the running test; start one if none runs on this event loop."""
        if self._task is None or self._task.done() or self._task.get_loop() is not asyncio.get_running_loop():
            self._started = time.monotonic()
            self._task = asyncio.create_task(self._run(self._started))
        return self._task

    async def _run(self, started: float) -> None:
        try:
            await self._test()
        except MachineFault as fault:
            self._failure, self._failed = fault, time.monotonic()
        else:
            self._failure, self._passed = None, started


async def run_test(seconds: float | None = None) -> None:
    """Encode the clip to MP4 (H.264 and AAC) in memory, decode both tracks, and compare.

    Args:
        seconds: the deadline; TEST_SECONDS by default.

    Raises:
        MachineFault: ffmpeg fails, takes longer than the deadline, or its output is not the clip.
    """
    deadline = TEST_SECONDS if seconds is None else seconds
    try:
        async with asyncio.timeout(deadline):
            await _encode_and_decode()
    except TimeoutError as error:
        raise FfmpegFault(f"{FAILED} within {deadline:g} s") from error
    except ffmpeg.FfmpegError as error:
        raise FfmpegFault(FAILED) from error
    except OSError as error:
        raise machine_fault(error) or FfmpegFault(FAILED) from error


SELF_TEST = SelfTest(run_test)  # of this process: all jobs run the same program


async def failure_at_start() -> str:
    """Test ffmpeg; return a sentence that says why a process cannot start, or an empty string."""
    try:
        await run_test(START_SECONDS)
        SELF_TEST.remember_pass()
    except MachineFault as fault:
        cause = fault.__cause__
        details = f" ({cause.stderr_tail or cause})" if isinstance(cause, ffmpeg.FfmpegError) else ""
        return f"cannot start: {fault.reason}{details}; check the ffmpeg of this machine"
    return ""


async def _encode_and_decode() -> None:
    with memory_file(_tone()) as tone, memory_file() as clip, memory_file() as samples:
        clip.write_bytes(await _encode(tone))
        # both tracks by one process: starting it takes most of the time
        pixels, _ = await ffmpeg.run(
            [
                *ffmpeg_args.decode_video_args(clip, MAX_PIXELS, ()),
                *("-map", "0:a:0", "-ac", "1", "-ar", str(SAMPLE_RATE), "-f", "f32le", "-y", f"file:{samples}"),
            ]
        )
        frames = np.frombuffer(pixels, np.uint8)
        sound = np.frombuffer(samples.read_bytes(), "<f4")
    if frames.size != FRAMES * HEIGHT * WIDTH * 3 or abs(float(frames.mean()) - GRAY) > 8:
        raise FfmpegFault(FAILED)
    if sound.size < SAMPLES or not AMPLITUDE / 2 < float(np.abs(sound).max()) < 1:
        raise FfmpegFault(FAILED)


async def _encode(tone: Path) -> bytes:
    audio = ffmpeg_args.AudioInput(tone, True, Fraction(SAMPLES, SAMPLE_RATE), MAX_PIXELS)
    args = ffmpeg_args.encode_args(FORMAT, audio, None, Quality.DRAFT)
    async with ffmpeg.FfmpegProcess(args, stdin=True, stdout=True) as process:
        frame = to_yuv420(np.full((HEIGHT, WIDTH, 3), GRAY, np.uint8))
        await process.write(np.tile(frame, (FRAMES, 1)).reshape(-1).data)
        await process.finish()
        return process.read_available()


def _tone() -> bytes:
    """Return a WAV file."""
    wave_form = AMPLITUDE * np.sin(np.arange(SAMPLES) * (2 * np.pi * 440 / SAMPLE_RATE))
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((wave_form * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def copy_of(fault: MachineFault) -> MachineFault:
    """Return the same fault without the traceback, which grows each time that one object is raised."""
    return type(fault)(fault.reason, fault.retry_after)
