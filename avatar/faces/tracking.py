"""Track one face through a video with few detections.

Frames are processed in segments. Through a segment the box is propagated by the motion of the image (`lipsync.motion`);
then the face is detected in the last frame of the segment. If both agree, the detection corrects the path in the frames
around it (`CorrectedPath`); if not, the face is also detected in the frame halfway, and so on, down to a few frames, or
to every frame where the face appears or disappears. The better the two agree, the longer the segments (`Cadence`).

Where the motion itself is unreliable, the segment ends and the face is detected again. If it is where it was expected
(it turned, or it moved fast), the path goes on; otherwise (a cut, an object in front of the face) a new path starts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeAlias

from lipsync.arrays import Floats, Image, Images
from lipsync.boxes import iou
from lipsync.motion import MotionTracker

from ..context import JobContext
from . import detection
from .cadence import GROW_IOU, MIN_SEGMENT, WAVERING_SEGMENT, Cadence
from .cuts import is_cut
from .path import CorrectedPath
from .selection import FaceSelector, match

SEGMENT_BYTES = 64 << 20  # of the frames that wait for their boxes: 72 of 640×480, 10 of 1080p
# Overlap of the detected box with the expected one from which they agree, in a short and in a long segment: where the
# detector starts to waver, a long one is divided into short ones after all
ACCEPT_IOU, ACCEPT_LONG_IOU = 0.8, GROW_IOU
SAME_FACE_IOU = 0.5  # overlap of the two from which a path goes on though its motion is unreliable

TrackedFrame: TypeAlias = tuple[Image, Floats | None]  # a frame, and the face's box FP32 [4] as if it were detected


class FaceTracker:
    """Tracks the face that the selector selects."""

    def __init__(self, selector: FaceSelector, job: JobContext) -> None:
        self._selector, self._job = selector, job
        self._cadence = Cadence()
        self._path: CorrectedPath | None = None  # of the present scene; None if the last frame shows no face
        self._held: deque[Image] = deque()  # the path's frames whose boxes are not final

    async def track(self, chunks: AsyncGenerator[Images]) -> AsyncGenerator[TrackedFrame]:
        """Yield each frame of `chunks` (UINT8 [n,H,W,3] each), in order, with the face's box, or None without a face.

        Raises:
            InvalidField: as `FaceSelector.select`.
        """
        waiting: deque[Image] = deque()
        previous: Image | None = None
        ended = False
        async with aclosing(chunks):
            while True:
                length = self._segment_length(previous)
                for frame in self._make_room(previous, length):
                    yield frame
                while not ended and len(waiting) < length:
                    frames = await anext(chunks, None)
                    ended = frames is None
                    waiting.extend(() if frames is None else frames)
                if not waiting:
                    break
                segment = [waiting.popleft() for _ in range(min(len(waiting), length))]
                used, tracked = await self._track_segment(previous, segment)
                waiting.extendleft(reversed(segment[used:]))
                for frame in tracked:
                    yield frame
                previous = segment[used - 1]
        for frame in self._end_path():
            yield frame

    async def detect(self, frame: Image) -> Floats | None:
        """Return the selected face, searched for in the whole frame, FP32 [4]. Raises as `FaceSelector.select`."""
        selected = self._selector.select(*await detection.detect_full_frame(frame, self._job))
        if selected is None or frame.shape[0] * frame.shape[1] <= detection.SEARCH_PIXELS:
            return selected
        # it was found in a smaller image: detect again around it, at the frame's own size
        refined = match(selected, *await detection.detect_in_roi(frame, selected, self._job))
        return selected if refined is None else refined

    def _segment_length(self, previous: Image | None) -> int:
        """Return how many frames the next segment has at most."""
        if self._path is None or previous is None:
            return 1
        return max(1, min(self._cadence.length, SEGMENT_BYTES // previous.nbytes))

    def _make_room(self, previous: Image | None, length: int) -> list[TrackedFrame]:
        """Return the held frames, as no later detection corrects them, if they and the next segment are too large."""
        if self._path is None or previous is None or (len(self._held) + length) * previous.nbytes <= SEGMENT_BYTES:
            return []
        return self._take(self._path.take_all())

    async def _track_segment(self, previous: Image | None, segment: list[Image]) -> tuple[int, list[TrackedFrame]]:
        """Track the face through the segment, up to the first frame in which the motion is unreliable.

        Returns:
            how many frames of the segment that were, and the frames (of earlier segments, too) whose boxes are final.
        """
        if previous is None or self._path is None:
            return 1, self._start_path(segment[0], await self.detect(segment[0]))
        start = self._path.expected()
        with self._job.timer.stage("following"):
            boxes, reliable = await asyncio.to_thread(_propagate, previous, start, segment)
        self._selector.update(start)
        frames = segment[: len(boxes)]
        found = await self._redetect(frames[-1], boxes[-1])
        if reliable or await _is_same_face([previous, *frames][-2:], boxes[-1], found):
            self._cadence.agreed(0.0 if found is None else _overlap(boxes[-1], found))
            detected = await self._refine(start, frames, boxes, found)
            return len(frames), self._correct(start, frames, boxes, detected)
        self._cadence.restart()
        self._path.extend(start, boxes[:-1])
        self._held.extend(frames[:-1])
        return len(frames), self._end_path() + self._start_path(frames[-1], found)

    async def _refine(
        self, start: Floats, frames: list[Image], boxes: list[Floats], found: Floats | None
    ) -> dict[int, Floats | None]:
        """Detect the face in as many frames as necessary.

        Args:
            start: FP32 [4], where the face is expected in the frame before.
            frames, boxes: the frames, and where the motion took `start` in each.
            found: the box detected in the last frame.

        Returns:
            the detected boxes FP32 [4], by the index of the frame.
        """
        propagated = [start, *boxes]
        detected: dict[int, Floats | None] = {0: start, len(frames): found}  # by index in `propagated`

        async def bisect(low: int, high: int) -> None:
            before, after = detected[low], detected[high]
            if high - low < 2 or (before is None and after is None):
                return
            if before is not None and after is not None:
                if high - low < MIN_SEGMENT:
                    return  # the boxes are smoothed over more frames than that
                moved = propagated[high] + before - propagated[low]
                if _overlap(moved, after) >= (ACCEPT_LONG_IOU if high - low > WAVERING_SEGMENT else ACCEPT_IOU):
                    return
            middle = (low + high) // 2
            detected[middle] = await self._redetect(frames[middle - 1], propagated[middle])
            await bisect(low, middle)
            await bisect(middle, high)

        await bisect(0, len(frames))
        return {index - 1: box for index, box in sorted(detected.items()) if index}

    def _correct(
        self, start: Floats, frames: list[Image], boxes: list[Floats], detected: dict[int, Floats | None]
    ) -> list[TrackedFrame]:
        """Extend the path by the frames, and return those whose boxes are final; the arguments are as in `_refine`."""
        tracked: list[TrackedFrame] = []
        first = 0  # frame after the last detection
        for index, box in detected.items():
            if self._path is None or box is None:
                tracked += self._end_path()
                tracked += [(frame, None) for frame in frames[first:index]]
                tracked += self._start_path(frames[index], box)
            else:
                before = boxes[first - 1] if first else start
                self._path.extend(before, boxes[first : index + 1], box)
                self._held.extend(frames[first : index + 1])
                if (steadiness := self._path.steadiness()) is not None:
                    self._cadence.measured(steadiness)
            first = index + 1
        return tracked + (self._take(self._path.take_final()) if self._path else [])

    def _start_path(self, frame: Image, box: Floats | None) -> list[TrackedFrame]:
        """Start a path with the box detected in the frame, or return the frame if there is none."""
        if box is None:
            return [(frame, None)]
        self._path = CorrectedPath(box)
        self._held.append(frame)
        return []

    def _end_path(self) -> list[TrackedFrame]:
        """Return all frames of the path, if there is one."""
        tracked = self._take(self._path.take_all()) if self._path else []
        self._path = None
        return tracked

    def _take(self, boxes: list[Floats]) -> list[TrackedFrame]:
        return [(self._held.popleft(), box) for box in boxes]

    async def _redetect(self, frame: Image, expected: Floats) -> Floats | None:
        """Return the face detected around the expected box; if there is none, the selected face of the whole frame."""
        found = match(expected, *await detection.detect_in_roi(frame, expected, self._job))
        return await self.detect(frame) if found is None else found


async def detect_face(image: Image, selector: FaceSelector, job: JobContext) -> Floats | None:
    """Return the selected face of one image, FP32 [4], or None if there is none. Raises as `FaceSelector.select`."""
    return await FaceTracker(selector, job).detect(image)


def _propagate(previous: Image, last: Floats, segment: list[Image]) -> tuple[list[Floats], bool]:
    """Return the box in each frame by its motion, and whether all are reliable; the first that is not ends the list."""
    motion, propagated = MotionTracker(previous, last), list[Floats]()
    for frame in segment:
        reliable = motion.update(frame)
        propagated.append(motion.box)
        if not reliable:
            return propagated, False
    return propagated, True


async def _is_same_face(frames: list[Image], expected: Floats, found: Floats | None) -> bool:
    """Return whether the face found in the last of two frames is the expected one, though the motion is unreliable."""
    if found is None or _overlap(expected, found) < SAME_FACE_IOU:
        return False
    return not await asyncio.to_thread(is_cut, *frames)


def _overlap(one: Floats, other: Floats) -> float:
    return float(iou(one, other[None])[0])
