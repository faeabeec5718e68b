"""Where the face is in every frame of the result."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np
from numpy.typing import NDArray

from lipsync.boxes import Boxes, Smoother, pad
from lipsync.faces import best_face
from lipsync.tensors import S3FD_BATCH

from .errors import AvatarError, FaceNotFound
from .flow import together
from .job import Job
from .pictures import Picture, Still
from .video import Video, read_frames

Seen = tuple[Picture, Boxes]  # one frame, BGR [H,W,3], and its smoothed box, INT32 [4]

# What one detection call holds: four frames of 640×480, a single one from there on. More at once would only cost
# the server memory (see S3FD_BATCH).
DETECTION_PIXELS = S3FD_BATCH * 640 * 480
AT_ONCE = 2  # detection calls: one is computed while the next one's frames travel
# A video that fits is kept decoded instead of being decoded anew every time round: a video of one frame under a
# minute of speech would start ffmpeg 1500 times.
KEPT_BYTES = 64 << 20


def track(avatar: Still | Video, total: int, job: Job) -> AsyncGenerator[Seen]:
    """Every frame of the result, `total` in all, with its box. Raises FaceNotFound where one has no face."""
    return _still(avatar.picture, total, job) if isinstance(avatar, Still) else _moving(avatar, total, job)


async def _still(picture: Picture, total: int, job: Job) -> AsyncGenerator[Seen]:
    """Detected once: the same picture and box again and again."""
    _, (box,) = await _detect(picture[None], job)
    for _ in range(total):
        yield picture, box


async def _moving(film: Video, total: int, job: Job) -> AsyncGenerator[Seen]:
    """A video's frames, looped where it is shorter than the speech and cut where it is longer.

    Faces are looked for, and boxes smoothed, over the frames that are used, and once only: of the first time
    round the boxes are remembered, and the frames where they are few.
    """
    boxes: list[Boxes] = []
    kept: list[Picture] = []
    room = KEPT_BYTES // (film.width * film.height * 3)
    async with aclosing(_first_time_round(film, total, job)) as first:
        async for picture, box in first:
            boxes.append(box)
            if len(boxes) <= room:
                kept.append(picture)
            yield picture, box
    if len(boxes) > room:
        kept.clear()
    given = len(boxes)
    while given < total:
        wanted = min(total - given, len(boxes))
        if kept:
            for seen in zip(kept[:wanted], boxes[:wanted], strict=True):
                yield seen
        else:
            async with aclosing(_once_more(film, boxes[:wanted], job)) as more:
                async for seen in more:
                    yield seen
        given += wanted


async def _first_time_round(film: Video, total: int, job: Job) -> AsyncGenerator[Seen]:
    smoother, waiting = Smoother(), deque[Picture]()

    async def detect(frames: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Boxes]:
        return await _detect(frames, job)

    async with aclosing(together(_pieces(film, total, job), detect, AT_ONCE)) as detected:
        async for frames, boxes in detected:
            waiting.extend(frames)
            for box in smoother.feed(boxes):
                yield waiting.popleft(), box
    for box in smoother.finish():
        yield waiting.popleft(), box


async def _once_more(film: Video, boxes: list[Boxes], job: Job) -> AsyncGenerator[Seen]:
    left = deque(boxes)
    async with aclosing(_pieces(film, len(boxes), job)) as pieces:
        async for frames in pieces:
            for frame in frames:
                yield frame, left.popleft()
    if left:
        raise AvatarError("a video had fewer frames the second time")


def _pieces(film: Video, most: int, job: Job) -> AsyncGenerator[NDArray[np.uint8]]:
    piece = min(S3FD_BATCH, max(1, DETECTION_PIXELS // (film.width * film.height)))
    return read_frames(film, most, piece, job)


async def _detect(frames: NDArray[np.uint8], job: Job) -> tuple[NDArray[np.uint8], Boxes]:
    """Frames [n,H,W,3] with their padded boxes, INT32 [n,4]."""
    with job.clock.stage("detection"):
        boxes, scores = await job.models.detect_faces(frames)
    best = [best_face(*face) for face in zip(boxes, scores, strict=True)]
    found = [face for face in best if face is not None]
    if len(found) < len(frames):
        raise FaceNotFound
    height, width = frames.shape[1:3]
    padded = pad(np.stack(found), width, height)
    if (padded[:, :2] >= padded[:, 2:]).any():  # nothing of it lies in the picture
        raise FaceNotFound
    return frames, padded
