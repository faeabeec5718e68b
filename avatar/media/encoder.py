"""Encode frames and audio with ffmpeg in one pass, into a file or a stream of chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from types import TracebackType

from lipsync.yuv import Planes

from ..errors import FfmpegFault
from ..options import Quality
from ..timing import StageTimer
from . import ffmpeg
from .codecs import Codec
from .diagnosis import rule_out_machine
from .encoder_process import EncoderProcess
from .ffmpeg_args import AudioInput, VideoFormat, encode_args
from .hardware import HARDWARE
from .marking import UNMARKED, Mark
from .mp4_fragments import Fragments
from .spool import Spool

NO_VIDEO = "ffmpeg wrote no video"
_MP4_MARK, _WEBM_MARK = b"ftyp", b"\x1a\x45\xdf\xa3"  # at byte 4 and at byte 0


class VideoEncoder:
    """Encodes one MP4 or WebM: `async with VideoEncoder(...) as encoder`, `write` the frames, `finish`.

    If the block is left without `finish`, the unfinished file is deleted.

    Attributes:
        path: the file; None if the result is streamed, and `ready_chunks` and `last_chunks` return it.
        frame_count: frames written so far.
        notes: after `finish`, what the caller should know about the mark of the result.
    """

    def __init__(
        self,
        path: Path | None,
        video: VideoFormat,
        audio: AudioInput,
        quality: Quality,
        timer: StageTimer,
        mark: Mark = UNMARKED,
        spool: Path | None = None,
    ) -> None:
        """Prepare to encode.

        Args:
            path: the file to write; None to stream the result.
            video, audio: its tracks.
            quality: of the frames.
            timer: measures the stages `encode` and `sign`.
            mark: of the result.
            spool: a new file, for a streamed result that is signed.
        """
        self.path = path
        self.frame_count = 0
        self.notes: tuple[str, ...] = (mark.note,) if mark.note else ()
        self._mark, self._spool = mark, Spool(spool, video.container) if spool else None
        self._file = path or spool
        if mark.signer and not self._file:
            raise ValueError("a streamed result is signed in a file: give its path as `spool`")
        self._audio_path = audio.path
        self._timer = timer
        self._is_ended = False  # ffmpeg has ended, and the result is complete
        self._is_finished = False  # and marked
        self._is_empty = True  # so far: of a result that is streamed
        args = partial(encode_args, video, audio, path, quality, mark.metadata)
        self._process = EncoderProcess(HARDWARE.codec(video), args, stdout=path is None)
        self._fragments = Fragments(video.container, mark.xmp)

    @property
    def codec(self) -> Codec:
        """Return the codec that is in use."""
        return self._process.codec

    async def __aenter__(self) -> VideoEncoder:
        await self._process.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._process.__aexit__(kind, error, trace)
        finally:
            if self._file and not self._is_finished:
                self._file.unlink(missing_ok=True)

    async def write(self, *frames: Planes) -> None:
        """Encode frames: planes UINT8 [3/2 · H, W] of the size of the format, [5/2 · H, W] with opacity.

        Raises:
            MachineFault: the machine fails or is too slow.
            FfmpegError: ffmpeg failed for another reason, a defect of this service.
        """
        with self._timer.stage("encode"):
            try:
                await self._process.write(*frames)
            except ffmpeg.FfmpegError as error:
                await self._rule_out_machine(error)
                raise
        self.frame_count += len(frames)

    async def finish(self) -> None:
        """Wait until the result is complete and marked.

        Raises:
            MachineFault, FfmpegError: as `write`.
            MarkFault: the result has to be signed, and cannot be.
        """
        with self._timer.stage("encode"):
            try:
                await self._process.finish()
            except ffmpeg.FfmpegError as error:
                await self._rule_out_machine(error)
                raise
            if self.path:
                await asyncio.to_thread(_complete, self.path, self._mark.xmp)
            self._is_ended = True
            await self._keep_chunks()
        await self._sign()
        self._is_finished = True

    async def ready_chunks(self) -> list[bytes]:
        """Return the chunks of a streamed result that are complete since the last call.

        Raises:
            FfmpegFault: ffmpeg ended without an error and without a video.
        """
        if self._spool is None:
            return self._new_chunks()
        await self._keep_chunks()
        return []

    async def last_chunks(self) -> AsyncGenerator[bytes]:
        """Yield the rest of a streamed result after `finish`: all of one that is signed. Raises as `ready_chunks`."""
        if self._spool is None:
            for chunk in self._new_chunks():
                yield chunk
        else:
            async for chunk in self._spool.read():
                yield chunk

    def _new_chunks(self) -> list[bytes]:
        if self.path:
            return []
        chunks = self._fragments.feed(self._process.read_available())
        if self._is_ended and (rest := self._fragments.flush()):
            chunks.append(rest)
        self._is_empty = self._is_empty and not chunks
        if self._is_ended and self._is_empty:
            raise FfmpegFault(NO_VIDEO)
        return chunks

    async def _keep_chunks(self) -> None:
        if self._spool and (chunks := self._new_chunks()):
            await asyncio.to_thread(self._spool.add, chunks)

    async def _sign(self) -> None:
        if self._file and self._mark.signer:
            with self._timer.stage("sign"):
                note = await self._mark.sign(self._file)
            self.notes = (*self.notes, note) if note else self.notes

    async def _rule_out_machine(self, error: ffmpeg.FfmpegError) -> None:
        """Raise MachineFault if the machine is the cause: a file that could be decoded does not slow the encoder."""
        await rule_out_machine(self._audio_path)
        if isinstance(error, ffmpeg.FfmpegTimeout):
            raise FfmpegFault("the encoder is too slow") from error


def _complete(path: Path, xmp: bytes) -> None:
    """Append the XMP box to a file that ffmpeg has written. Raises FfmpegFault if it is no video."""
    if not _is_video(path):
        raise FfmpegFault(NO_VIDEO)
    if xmp:
        with path.open("ab") as file:
            file.write(xmp)


def _is_video(path: Path) -> bool:
    """Return whether the file starts as a result does."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except FileNotFoundError:
        return False
    return head[4:] == _MP4_MARK or head.startswith(_WEBM_MARK)
