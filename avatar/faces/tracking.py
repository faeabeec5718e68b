"""Track one face through a video with few detections.

Frames are processed in segments. Through a segment the box is propagated by the motion of the image (`lipsync.motion`);
then the face is detected in the last frame of the segment. If both agree, the small difference is spread over the
frames between; if not, the face is detected in the frame halfway, and so on, down to every frame. Segments get longer
while the two agree, and shorter when they do not. Where the motion itself is unreliable (a cut, an object in front of
the face), the segment ends, and the face is detected again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from lipsync.arrays import Floats, Image, Images
from lipsync.boxes import iou
from lipsync.motion import MotionTracker

from ..context import JobContext
from . import detection
from .selection import FaceSelector, match

MIN_SEGMENT, MAX_SEGMENT = 4, 32  # frames
SEGMENT_BYTES = 64 << 20  # of the frames that a segment holds: 32 of 640×480, 10 of 1080p
ACCEPT_IOU, GROW_IOU = 0.8, 0.9  # overlap of the propagated box with the detected one

TrackedFrame: TypeAlias = tuple[Image, Floats | None]  # a frame, and the face's box FP32 [4] as if it were detected


class FaceTracker:
    """Tracks the face that the selector selects."""

    def __init__(self, selector: FaceSelector, job: JobContext) -> None:
        self._selector, self._job = selector, job
        self._length = MIN_SEGMENT
        self._last: Floats | None = None  # where the face was in the previous frame

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
                while not ended and len(waiting) < self._segment_length(waiting):
                    frames = await anext(chunks, None)
                    ended = frames is None
                    waiting.extend(() if frames is None else frames)
                if not waiting:
                    return
                if previous is None or self._last is None:
                    previous = waiting.popleft()
                    self._last = await self.detect(previous)
                    yield previous, self._last
                    continue
                count = min(len(waiting), self._segment_length(waiting))
                segment = [waiting.popleft() for _ in range(count)]
                boxes = await self._track_segment(previous, self._last, segment)
                for frame in reversed(segment[len(boxes) :]):
                    waiting.appendleft(frame)
                for frame, box in zip(segment, boxes, strict=False):
                    yield frame, box
                previous, self._last = segment[len(boxes) - 1], boxes[-1]

    async def detect(self, frame: Image) -> Floats | None:
        """Return the selected face, searched for in the whole frame, FP32 [4]. Raises as `FaceSelector.select`."""
        selected = self._selector.select(*await detection.detect_full_frame(frame, self._job))
        if selected is None or frame.shape[0] * frame.shape[1] <= detection.SEARCH_PIXELS:
            return selected
        # it was found in a smaller image: detect again around it, at the frame's own size
        refined = match(selected, *await detection.detect_in_roi(frame, selected, self._job))
        return selected if refined is None else refined

    def _segment_length(self, waiting: deque[Image]) -> int:
        """Return how many frames the next segment has at most."""
        if self._last is None or not waiting:
            return 1
        return max(1, min(self._length, SEGMENT_BYTES // waiting[0].nbytes))

    async def _track_segment(self, previous: Image, last: Floats, segment: list[Image]) -> list[Floats | None]:
        """Return boxes of the segment's frames; if the motion is unreliable in one, none of the frames after it."""
        with self._job.timer.stage("following"):
            propagated, reliable = await asyncio.to_thread(_propagate, previous, last, segment)
        self._selector.update(last)
        if reliable:
            return await self._refine(last, segment, propagated)
        self._length = MIN_SEGMENT
        unreliable = segment[len(propagated) - 1]
        # only this frame is detected again; the frames before it have the box that was propagated to them
        return [*propagated[:-1], await self._redetect(unreliable, propagated[-1])]

    async def _refine(self, last: Floats, segment: list[Image], propagated: list[Floats]) -> list[Floats | None]:
        """Return the segment's boxes: detected where that is necessary, and corrected accordingly between."""
        paths = [last, *propagated]
        detected: dict[int, Floats | None] = {0: last}

        async def detect_end(low: int, high: int) -> None:
            detected[high] = await self._redetect(segment[high - 1], paths[high])
            await bisect(low, high)

        async def bisect(low: int, high: int) -> None:
            start, end = detected[low], detected[high]
            if high - low < 2 or (start is None and end is None):
                return
            if start is not None and end is not None and _overlap(paths[high] + start - paths[low], end) >= ACCEPT_IOU:
                return
            middle = (low + high) // 2
            await detect_end(low, middle)
            await bisect(middle, high)

        await detect_end(0, len(segment))
        end = detected[len(segment)]
        self._adapt_length(0.0 if end is None else _overlap(paths[-1], end))
        return _interpolate(paths, detected)[1:]

    def _adapt_length(self, agreement: float) -> None:
        if agreement >= GROW_IOU:
            self._length = min(MAX_SEGMENT, 2 * self._length)
        elif agreement < ACCEPT_IOU:
            self._length = max(2, self._length // 2)

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


def _interpolate(paths: list[Floats], detected: dict[int, Floats | None]) -> list[Floats | None]:
    """Return the box of each frame: as propagated, corrected by the errors at the detections before and after it."""
    boxes: list[Floats | None] = [None] * len(paths)
    known = sorted(detected)
    for index in known:
        boxes[index] = detected[index]
    for low, high in pairwise(known):
        start, end = detected[low], detected[high]
        if start is None or end is None:
            continue
        for index in range(low + 1, high):
            share = (index - low) / (high - low)
            error = (start - paths[low]) * (1 - share) + (end - paths[high]) * share
            boxes[index] = (paths[index] + error).astype(np.float32)
    return boxes


def _overlap(one: Floats, other: Floats) -> float:
    return float(iou(one, other[None])[0])
