"""Play a video for longer than it lasts: which of its frames is shown when, and how it is read for that."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple

from lipsync.arrays import Image, Images

from ..errors import AvatarError
from ..options import ExtendMode
from ..timing import StageTimer
from .decoding import read_frames
from .video import Logger, Video

# A video that fits is kept decoded instead of being decoded again for each repetition: for a video of one frame under
# a minute of speech, ffmpeg would be started 1500 times.
KEPT_BYTES = 64 << 20
# Frames that are held in memory to be shown in reverse order. Each group of them costs one pass of ffmpeg through the
# video, from its start to the end of the group.
REVERSED_BYTES = 256 << 20


def frame_index(n: int, count: int, mode: ExtendMode) -> int:
    """Return which of a video's `count` frames is shown as frame `n` of the result; both start at 0.

    LOOP starts again with the first frame. BOUNCE plays backward and forward; the frame at which it turns is shown
    once. HOLD shows the last frame from then on.
    """
    if mode is ExtendMode.HOLD or count == 1:
        return min(n, count - 1)
    if mode is ExtendMode.LOOP:
        return n % count
    position = n % (2 * count - 2)
    return min(position, 2 * count - 2 - position)


@dataclass(frozen=True)
class FrameReader:
    """Reads frames of one video, at most `chunk_frames` per array."""

    video: Video
    chunk_frames: int
    timer: StageTimer
    log: Logger

    def read(self, *, first: int = 0, max_frames: int, step: int = 1) -> AsyncGenerator[Images]:
        """Yield arrays UINT8 [n,H,W,3] BGR and raise the errors of `read_frames`."""
        return read_frames(
            self.video, self.chunk_frames, self.timer, self.log, first=first, max_frames=max_frames, step=step
        )

    async def frame(self, index: int) -> Image:
        """Return one frame, UINT8 [H,W,3] BGR. Raises AvatarError if the video ends before it."""
        async with aclosing(self.read(first=index, max_frames=1)) as chunks:
            async for images in chunks:
                image: Image = images[0]
                return image
        raise _fewer_frames()


class KeptFrames:
    """The decoded frames of a video that is repeated, where all of them take at most KEPT_BYTES.

    Attributes:
        images: UINT8 [H,W,3] BGR each, or none at all.
    """

    def __init__(self, video: Video, frame_count: int) -> None:
        """`frame_count`: frames of the result. Frames of a video that is shown only once are not kept."""
        max_frames = KEPT_BYTES // _frame_bytes(video)
        # `video.frame_count` comes from the timestamps of the file and can be wrong; `add` therefore counts as well
        self._max_frames = max_frames if video.frame_count < frame_count and video.frame_count <= max_frames else 0
        self.images: list[Image] = []

    def add(self, image: Image) -> None:
        """Keep the next frame; discard all frames once they are too many."""
        if len(self.images) < self._max_frames:
            self.images.append(image)
        else:
            self._max_frames = 0
            self.images.clear()


async def repeat(
    reader: FrameReader, count: int, frame_count: int, mode: ExtendMode, kept: Sequence[Image] = ()
) -> AsyncGenerator[tuple[int, Image]]:
    """Yield the frames of the result after the first `count`, which are all that the video has, up to `frame_count`.

    Args:
        count: frames of the video that have been shown once; at least 1 where there are fewer than `frame_count`.
        kept: all frames of the video, or none if they have to be decoded again.

    Yields:
        The index of the frame in the video, and the frame, UINT8 [H,W,3] BGR.

    Raises:
        AvatarError: the video has fewer frames than in the first pass.
    """
    for run in _runs(count, frame_count, count, mode):
        async with aclosing(_play(reader, run, kept)) as frames:
            async for frame in frames:
                yield frame


async def play(reader: FrameReader, frame_count: int, mode: ExtendMode) -> AsyncGenerator[Image]:
    """Yield all `frame_count` frames of the result: the video once, then repeated. Raises as `repeat`."""
    count = 0
    async with aclosing(reader.read(max_frames=frame_count)) as chunks:
        async for images in chunks:
            for image in images:
                count += 1
                yield image
    async with aclosing(repeat(reader, count, frame_count, mode)) as repeated:
        async for _, image in repeated:
            yield image


class _Run(NamedTuple):
    """Frames in succession: forward (`step` 1), backward (-1), or one frame that is held (0)."""

    first: int
    step: int
    length: int

    @property
    def indices(self) -> Iterator[int]:
        return (self.first + n * self.step for n in range(self.length))


def _runs(start: int, stop: int, count: int, mode: ExtendMode) -> Iterator[_Run]:
    """Group the frames `start` to `stop` of the result into runs."""
    while start < stop:
        first = frame_index(start, count, mode)
        step = frame_index(start + 1, count, mode) - first
        if step == 0:
            length = stop - start
        elif step == -1:
            length = first + 1
        else:
            step, length = 1, count - first
        length = min(length, stop - start)
        yield _Run(first, step, length)
        start += length


async def _play(reader: FrameReader, run: _Run, kept: Sequence[Image]) -> AsyncGenerator[tuple[int, Image]]:
    """Yield the frames of one run, from memory or from the file."""
    if kept:
        for index in run.indices:
            yield index, kept[index]
    elif run.step == 0:
        image = await reader.frame(run.first)
        for _ in range(run.length):
            yield run.first, image
    else:
        frames = _forward(reader, run) if run.step == 1 else _backward(reader, run)
        async with aclosing(frames):
            async for frame in frames:
                yield frame


async def _forward(reader: FrameReader, run: _Run) -> AsyncGenerator[tuple[int, Image]]:
    index = run.first
    async with aclosing(reader.read(first=index, max_frames=run.length)) as chunks:
        async for images in chunks:
            for image in images:
                yield index, image
                index += 1
    if index < run.first + run.length:
        raise _fewer_frames()


async def _backward(reader: FrameReader, run: _Run) -> AsyncGenerator[tuple[int, Image]]:
    max_lot = max(1, REVERSED_BYTES // _frame_bytes(reader.video))
    shown = 0
    while shown < run.length:
        length = min(max_lot, run.length - shown)
        low = run.first - shown - length + 1
        held: list[Image] = []
        async with aclosing(reader.read(first=low, max_frames=length)) as chunks:
            async for images in chunks:
                held.extend(images)
        if len(held) < length:
            raise _fewer_frames()
        while held:
            yield low + len(held) - 1, held.pop()
        shown += length


def _frame_bytes(video: Video) -> int:
    return video.width * video.height * 3


def _fewer_frames() -> AvatarError:
    return AvatarError("the video has fewer frames than in the first pass")
