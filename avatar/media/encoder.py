"""The result: frames and speech, encoded and muxed in one pass, into a file or to who listens."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from ..context import JobContext
from . import ffmpeg, ffmpeg_args
from .audio import Speech
from .image import Picture
from .mp4_fragments import Fragments


class Film:
    """An mp4 or WebM in the making: `async with Film(...) as film`, `write` every frame, `finish`.

    Where the block is left without `finish`, no file stays behind. Without a `path` there is none: `pieces` has what
    is there to be sent.
    """

    def __init__(
        self, path: Path | None, picture: ffmpeg_args.Picture, speech: Speech, job: JobContext, comment: str = ""
    ) -> None:
        self.path = path
        self.frames = 0
        self._job = job
        self._finished = False
        sound = ffmpeg_args.Sound(speech.path, speech.sane, speech.duration, job.limits.max_pixels)
        args = ffmpeg_args.encode_args(picture, sound, path, job.options.quality, comment)
        self._process = ffmpeg.Process(args, fed=True, tapped=path is None)
        self._fragments = Fragments(picture.container)

    async def __aenter__(self) -> Film:
        await self._process.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._process.__aexit__(kind, error, trace)
        finally:
            if self.path and not self._finished:
                self.path.unlink(missing_ok=True)

    async def write(self, frame: Picture) -> None:
        """Add a frame, BGR [H,W,3] (or BGRA) of the film's size. Raises FfmpegFailed."""
        with self._job.timer.stage("encode"):
            await self._process.write(frame.reshape(-1).data)
        self.frames += 1

    async def finish(self) -> None:
        """Wait until the file is complete. Raises FfmpegFailed."""
        with self._job.timer.stage("encode"):
            await self._process.finish()
        self._finished = True

    def pieces(self) -> list[bytes]:
        """What may be sent since the last time; after `finish`, all the rest."""
        if self.path:
            return []
        pieces = self._fragments.feed(self._process.taken())
        if self._finished and (rest := self._fragments.rest()):
            pieces.append(rest)
        return pieces
