"""One face followed through a video with few looks of the detector.

Frames come in groups. Through a group the box is carried by how the picture moves (`lipsync.motion`), then the
detector looks at the group's last frame. Where it agrees, what little it disagrees by is spread over the frames
between; where it does not, it looks at the frame halfway, and so on, down to every frame. Groups grow while the two
agree, and shrink when they stop to. Where the motion itself is in doubt (a cut, something before the face) the group
ends there, and the detector looks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lipsync.arrays import Floats
from lipsync.motion import MotionTracker

from ..context import JobContext
from ..media.image import Picture
from . import detection
from .selection import FaceSelector, overlap, match

MIN_SEGMENT, MAX_SEGMENT = 4, 32  # frames in a group
SEGMENT_BYTES = 64 << 20  # of frames that a group holds: 32 of 640×480, 10 of 1080p
ACCEPT_IOU, GROW_IOU = 0.8, 0.9  # overlap of where the box was carried and where the detector finds it

TrackedFrame = tuple[Picture, Floats | None]  # a frame, and the box of the face in it, FP32 [4], as the detector would give it


class FaceTracker:
    """Follows the face that the chooser chooses."""

    def __init__(self, chooser: FaceSelector, job: JobContext) -> None:
        self._selector, self._job = chooser, job
        self._length = MIN_SEGMENT
        self._last: Floats | None = None  # where the face was in the frame before

    async def track(self, pieces: AsyncGenerator[NDArray[np.uint8]]) -> AsyncGenerator[TrackedFrame]:
        """Every frame of `pieces` (UINT8 [n,H,W,3] each), in order, with the box of the face, or None without one.

        Raises:
            InvalidField: as `Chooser.choose`.
        """
        waiting: deque[Picture] = deque()
        before: Picture | None = None
        over = False
        async with aclosing(pieces):
            while True:
                while not over and len(waiting) < self._segment_length(waiting):
                    frames = await anext(pieces, None)
                    over = frames is None
                    waiting.extend(() if frames is None else frames)
                if not waiting:
                    return
                if before is None or self._last is None:
                    before = waiting.popleft()
                    self._last = await self.detect(before)
                    yield before, self._last
                    continue
                count = min(len(waiting), self._segment_length(waiting))
                group = [waiting.popleft() for _ in range(count)]
                boxes = await self._track_segment(before, self._last, group)
                for left in reversed(group[len(boxes) :]):
                    waiting.appendleft(left)
                for frame, box in zip(group, boxes, strict=False):
                    yield frame, box
                before, self._last = group[len(boxes) - 1], boxes[-1]

    def _segment_length(self, waiting: deque[Picture]) -> int:
        if self._last is None or not waiting:
            return 1
        return max(1, min(self._length, SEGMENT_BYTES // waiting[0].nbytes))

    async def _track_segment(self, before: Picture, last: Floats, group: list[Picture]) -> list[Floats | None]:
        """Boxes of the group's frames, or of as many of them as the motion was sure of and one more."""
        with self._job.timer.stage("following"):
            carried, sure = await asyncio.to_thread(_propagate, before, last, group)
        self._selector.update(last)
        if sure:
            return await self._refine(last, group, carried)
        self._length = MIN_SEGMENT
        doubtful = group[len(carried) - 1]
        # the frame in doubt begins anew; that in front of it is where the face was carried to
        return [*carried[:-1], await self._redetect(doubtful, carried[-1])]

    async def _refine(self, last: Floats, group: list[Picture], carried: list[Floats]) -> list[Floats | None]:
        """The boxes of a group, as carried and as the detector finds them where it has to look."""
        paths = [last, *carried]
        looks: dict[int, Floats | None] = {0: last}

        async def settle(low: int, high: int) -> None:
            looks[high] = await self._redetect(group[high - 1], paths[high])
            await between(low, high)

        async def between(low: int, high: int) -> None:
            one, other = looks[low], looks[high]
            if high - low < 2 or (one is None and other is None):
                return
            if one is not None and other is not None and _overlap(paths[high] + one - paths[low], other) >= ACCEPT_IOU:
                return
            middle = (low + high) // 2
            await settle(low, middle)
            await between(middle, high)

        await settle(0, len(group))
        end = looks[len(group)]
        agreed = 0.0 if end is None else _overlap(paths[-1], end)
        if agreed >= GROW_IOU:
            self._length = min(MAX_SEGMENT, 2 * self._length)
        elif agreed < ACCEPT_IOU:
            self._length = max(2, self._length // 2)
        return _interpolate(paths, looks)[1:]

    async def _redetect(self, frame: Picture, expected: Floats) -> Floats | None:
        """Where the detector finds the face that is expected here; else any that may be meant, anywhere."""
        found = match(expected, *await detection.detect_in_roi(frame, expected, self._job))
        return await self.detect(frame) if found is None else found

    async def detect(self, frame: Picture) -> Floats | None:
        """The face that is meant, looked for anywhere in the frame, FP32 [4]. Raises as `Chooser.choose`."""
        chosen = self._selector.select(*await detection.detect_full_frame(frame, self._job))
        if chosen is None or frame.shape[0] * frame.shape[1] <= detection.SEARCH_PIXELS:
            return chosen
        # found in a smaller picture: the box itself is measured at its own size
        closer = match(chosen, *await detection.detect_in_roi(frame, chosen, self._job))
        return chosen if closer is None else closer


async def detect_face(picture: Picture, chooser: FaceSelector, job: JobContext) -> Floats | None:
    """The face of a single picture, FP32 [4], or None where there is none. Raises as `Chooser.choose`."""
    return await FaceTracker(chooser, job).detect(picture)


def _propagate(before: Picture, last: Floats, group: list[Picture]) -> tuple[list[Floats], bool]:
    """The box in each frame by its motion; the list ends with the first that is in doubt, if one is."""
    motion, carried = MotionTracker(before, last), list[Floats]()
    for frame in group:
        sure = motion.update(frame)
        carried.append(motion.box)
        if not sure:
            return carried, False
    return carried, True


def _interpolate(paths: list[Floats], looks: dict[int, Floats | None]) -> list[Floats | None]:
    """Boxes of every frame: as carried, moved by what the looks before and behind found it off by."""
    boxes: list[Floats | None] = [None] * len(paths)
    known = sorted(looks)
    for number in known:
        boxes[number] = looks[number]
    for low, high in pairwise(known):
        one, other = looks[low], looks[high]
        if one is None or other is None:
            continue
        for number in range(low + 1, high):
            share = (number - low) / (high - low)
            off = (one - paths[low]) * (1 - share) + (other - paths[high]) * share
            boxes[number] = (paths[number] + off).astype(np.float32)
    return boxes


def _overlap(one: Floats, other: Floats) -> float:
    return float(overlap(one, other[None])[0])
