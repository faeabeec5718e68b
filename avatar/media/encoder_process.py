"""The ffmpeg process of an encoder. A hardware encoder that cannot be opened is replaced by x264.

A GPU has a number of sessions, and other programs use them too: so NVENC can work at start and not for a job. ffmpeg
opens its encoders when it has the first frames. The frames that it may not have encoded yet are held until it logs that
all encoders are open; if it ends before, they are encoded again, and nothing of the first attempt was sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType

from lipsync.yuv import Planes

from ..errors import FfmpegFault, MachineFault
from . import ffmpeg
from .codecs import Codec
from .diagnosis import watched
from .ffmpeg_output import OUTPUT_OPEN
from .hardware import HARDWARE

logger = logging.getLogger("avatar")

HELD_BYTES = 192 << 20  # ffmpeg opens its encoders after some frames and a full pipe; this is over ten frames of 4K


class EncoderProcess:
    """Runs ffmpeg with the arguments for a codec: `async with EncoderProcess(...) as process`.

    Attributes:
        codec: the one that is in use.
    """

    def __init__(self, codec: Codec, args: Callable[[Codec], list[str]], *, stdout: bool) -> None:
        """Prepare the process.

        Args:
            codec: to start with.
            args: returns ffmpeg's arguments for a codec.
            stdout: collect stdout, for `read_available`.
        """
        self.codec = codec
        self._args, self._stdout = args, stdout
        self._process = self._new_process()
        self._held: list[Planes] | None = [] if codec is Codec.NVENC else None

    async def __aenter__(self) -> EncoderProcess:
        await self._process.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._process.__aexit__(kind, error, trace)

    async def write(self, *frames: Planes) -> None:
        """Give ffmpeg frames.

        Raises:
            FfmpegError, MachineFault: as `FfmpegProcess.write`; FfmpegFault if the GPU fails after it was in use.
        """
        if self._held is not None:
            self._held.extend(frames)
        try:
            await watched(self._process.write(*(frame.reshape(-1).data for frame in frames)))
        except (ffmpeg.FfmpegError, MachineFault) as error:
            await self._use_x264(error)
        self._release()

    async def finish(self) -> None:
        """Wait until ffmpeg has written everything. Raises as `write`."""
        try:
            await watched(self._process.finish())
        except (ffmpeg.FfmpegError, MachineFault) as error:
            await self._use_x264(error)
            await watched(self._process.finish())

    def read_available(self) -> bytes:
        """Return what was collected from stdout since the last call; after `finish`, all that remains."""
        return self._process.read_available()

    def _new_process(self) -> ffmpeg.FfmpegProcess:
        return ffmpeg.FfmpegProcess(self._args(self.codec), stdin=True, stdout=self._stdout)

    def _release(self) -> None:
        """Forget the held frames once they are no longer needed, or too many."""
        if self._held is None:
            return
        if self._process.has_logged(OUTPUT_OPEN) or len(self._held) * self._held[0].nbytes > HELD_BYTES:
            self._held = None

    async def _use_x264(self, error: ffmpeg.FfmpegError | MachineFault) -> None:
        """Start again with x264 and the held frames after NVENC failed; raise the error after x264 did."""
        if self.codec is not Codec.NVENC:
            raise error
        HARDWARE.encoder_failed()
        self._release()
        if self._held is None:
            raise FfmpegFault("the hardware encoder failed") from error
        reason = error.stderr_tail if isinstance(error, ffmpeg.FfmpegError) else str(error)
        logger.warning("NVENC cannot be used, x264 encodes instead: %s", reason)
        frames, self._held = self._held, None
        self.codec = Codec.X264
        ended, self._process = self._process, self._new_process()
        await ended.__aexit__(None, None, None)
        await self._process.__aenter__()
        for frame in frames:
            await watched(self._process.write(frame.reshape(-1).data))
