"""Measure how near the boxes of `detection=fast` are to those of every frame, and to the steady path of the face."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from avatar.context import JobContext, RequestLogger
from avatar.faces.detection import detect_batch
from avatar.faces.selection import FaceSelector
from avatar.faces.tracking import FaceTracker
from avatar.options import FaceOrder
from avatar.testing import Box, FakeInference
from lipsync.arrays import Array, Floats, Image, Images
from lipsync.boxes import iou, pad, smooth
from lipsync.face_detection import to_pixels

from ..errors import BenchError

STEADY_FRAMES = 9  # the steady path is the mean over this many boxes, centered
CHUNK = 4  # frames that are given to the tracker at a time


@dataclass(frozen=True)
class Comparison:
    """`fast` compared with the detection of every frame.

    Attributes:
        mean, worst: IoU of the padded and smoothed boxes, over the frames.
        wavering: mean IoU of the detector's boxes in successive frames.
        steady, steady_every: mean IoU to the steady path, of the boxes of `fast` and of those of every frame.
        pixels: share of the pixels that the detector is given.
        calls: images that the detector is given.
    """

    mean: float
    worst: float
    wavering: float
    steady: float
    steady_every: float
    pixels: float
    calls: int


class CountingDetector(FakeInference):
    """Answers with the face that a function finds, and counts the pixels."""

    def __init__(self, find: Callable[[Image], Box | None]) -> None:
        super().__init__(find)
        self.pixels = 0

    async def detect_faces(self, frames: Images) -> tuple[Floats, Floats]:
        """As in `FakeInference`."""
        self.pixels += frames.shape[0] * frames.shape[1] * frames.shape[2]
        return await super().detect_faces(frames)


async def detect_every(images: Images, find: Callable[[Image], Box | None]) -> Floats:
    """Return the face's box in every frame as `exact` selects it, FP32 [n,4]."""
    job, selector = _job(CountingDetector(find)), FaceSelector(FaceOrder.BEST)
    return _all_found([selector.select(*(await detect_batch(image[None], job))[0]) for image in images])


async def compare(images: Images, every: Floats, find: Callable[[Image], Box | None]) -> Comparison:
    """Track the face through the frames UINT8 [n,H,W,3], and compare it with `every`, the boxes of every frame."""

    async def chunks() -> AsyncGenerator[Images]:
        for first in range(0, len(images), CHUNK):
            yield images[first : first + CHUNK]

    detector = CountingDetector(find)
    tracker = FaceTracker(FaceSelector(FaceOrder.BEST), _job(detector))
    tracked = _all_found([box async for _, box in tracker.track(chunks())])
    height, width = images.shape[1:3]
    overlaps = _overlaps(*(_finished(boxes, width, height) for boxes in (tracked, every)))
    reach = STEADY_FRAMES // 2
    path = np.array([every[max(0, n - reach) : n + reach + 1].mean(axis=0) for n in range(len(every))])
    return Comparison(
        mean=float(overlaps.mean()),
        worst=float(overlaps.min()),
        wavering=float(_overlaps(every[1:], every[:-1]).mean()),
        steady=float(_overlaps(tracked, path).mean()),
        steady_every=float(_overlaps(every, path).mean()),
        pixels=detector.pixels / (images.size // 3),
        calls=detector.frame_count,
    )


def _job(detector: FakeInference) -> JobContext:
    return JobContext(detector, RequestLogger("bench"))


def _all_found(boxes: Sequence[Floats | None]) -> Floats:
    found = [box for box in boxes if box is not None]
    if len(found) < len(boxes):
        raise BenchError(f"no face in {len(boxes) - len(found)} of {len(boxes)} frames")
    return np.array(found, np.float32)


def _finished(boxes: Floats, width: int, height: int) -> Floats:
    """Return the boxes as a job uses them: in whole pixels, padded and smoothed."""
    whole = np.array([to_pixels(box) for box in boxes])
    return smooth(pad(whole, width, height)).astype(np.float32)


def _overlaps(one: Array, other: Array) -> Floats:
    pairs = zip(one, other, strict=True)
    return np.array([iou(box, partner[None])[0] for box, partner in pairs], np.float32)
