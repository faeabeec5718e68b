"""Encode frames and audio with ffmpeg in one pass, into a file or a stream of chunks."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from lipsync.arrays import Image

from ..options import Quality
from ..timing import StageTimer
from . import ffmpeg
from .ffmpeg_args import AudioInput, VideoFormat, encode_args
from .mp4_fragments import Fragments


class VideoEncoder:
    """Encodes one MP4 or WebM: `async with VideoEncoder(...) as encoder`, `write` each frame, `finish`.

    If the block is left without `finish`, the unfinished file is deleted.

    Attributes:
        path: the file; None if the result is streamed, and `ready_chunks` returns it.
        frame_count: frames written so far.
    """

    def __init__(
        self,
        path: Path | None,
        video: VideoFormat,
        audio: AudioInput,
        quality: Quality,
        timer: StageTimer,
        comment: str = "",
    ) -> None:
        self.path = path
        self.frame_count = 0
        self._timer = timer
        self._is_finished = False
        args = encode_args(video, audio, path, quality, comment)
        self._process = ffmpeg.FfmpegProcess(args, stdin=True, stdout=path is None)
        self._fragments = Fragments(video.container)

    async def __aenter__(self) -> VideoEncoder:
        await self._process.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._process.__aexit__(kind, error, trace)
        finally:
            if self.path and not self._is_finished:
                self.path.unlink(missing_ok=True)

    async def write(self, frame: Image) -> None:
        """Encode one frame, UINT8 [H,W,3] BGR or [H,W,4] BGRA, of the size of the format. Raises FfmpegError."""
        with self._timer.stage("encode"):
            await self._process.write(frame.reshape(-1).data)
        self.frame_count += 1

    async def finish(self) -> None:
        """Wait until the result is complete. Raises FfmpegError."""
        with self._timer.stage("encode"):
            await self._process.finish()
        self._is_finished = True

    def ready_chunks(self) -> list[bytes]:
        """Return the chunks that are complete since the last call; after `finish`, all that remains."""
        if self.path:
            return []
        chunks = self._fragments.feed(self._process.read_available())
        if self._is_finished and (rest := self._fragments.flush()):
            chunks.append(rest)
        return chunks
