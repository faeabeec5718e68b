"""The result: frames and speech, encoded and muxed in one pass."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from . import ffmpeg, media
from .job import Job
from .pictures import Picture
from .sound import Speech


class Film:
    """An mp4 or WebM in the making: `async with Film(...) as film`, `write` every frame, `finish`.

    Where the block is left without `finish`, no file stays behind.
    """

    def __init__(self, path: Path, picture: media.Picture, speech: Speech, job: Job, comment: str = "") -> None:
        self.path = path
        self.frames = 0
        self._job = job
        self._finished = False
        sound = media.Sound(speech.path, speech.sane, speech.duration, job.limits.pixels)
        args = media.encode_args(picture, sound, path, job.options.quality, comment)
        self._process = ffmpeg.Process(args, fed=True)

    async def __aenter__(self) -> Self:
        await self._process.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._process.__aexit__(kind, error, trace)
        finally:
            if not self._finished:
                self.path.unlink(missing_ok=True)

    async def write(self, frame: Picture) -> None:
        """Add a frame, BGR [H,W,3] (or BGRA) of the film's size. Raises FfmpegFailed."""
        with self._job.clock.stage("encode"):
            await self._process.write(frame.reshape(-1).data)
        self.frames += 1

    async def finish(self) -> None:
        """Wait until the file is complete. Raises FfmpegFailed."""
        with self._job.clock.stage("encode"):
            await self._process.finish()
        self._finished = True
