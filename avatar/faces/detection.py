"""Looking for faces in one picture: as the original does, in all of it; or where they are likely, which is quicker."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync.arrays import Floats

from .. import limits
from ..context import JobContext
from ..media.image import Picture

Detections = tuple[Floats, Floats]  # what detection says of one picture: boxes [16,4] and scores [16]

# A whole picture is first brought to this. S3FD's finest cells are 4 pixels, so a face of a twelfth of its height is
# still found; where nothing is, the picture is looked at as it is.
SEARCH_PIXELS = 640 * 480
COARSE_PIXELS = 320 * 240  # enough to tell that there is a face
# What is looked at around a face: so much of its box on each side. What S3FD knows of a face comes from there.
ROI_MARGIN = 0.3
# The part begins on this grid, of S3FD's coarsest cells. Cells then lie where those of the whole picture do, and the
# box comes out the same; and as sides are multiples of it, parts of many jobs share a batch.
GRID = 128
MIN_SIDE = 32  # pixels; of less S3FD can make nothing
ROI_PIXELS = 1_000_000  # a larger part is scaled down to this


async def detect_batch(frames: NDArray[np.uint8], job: JobContext) -> list[Detections]:
    """The faces of whole pictures UINT8 [n,H,W,3], n at most one batch."""
    if not len(frames):
        return []
    less = [max(0, MIN_SIDE - side) for side in frames.shape[1:3]]
    if any(less):
        frames = np.pad(frames, ((0, 0), (0, less[0]), (0, less[1]), (0, 0)))
    with job.timer.stage("detection"):
        boxes, scores = await job.models.detect_faces(frames)
    return list(zip(boxes, scores, strict=True))


async def detect_full_frame(picture: Picture, job: JobContext, first: int = SEARCH_PIXELS) -> Detections:
    """The faces of a picture UINT8 [H,W,3], looked for at a size of `first` pixels at first; where nothing is found, at
    larger ones."""
    for pixels in sorted({first, SEARCH_PIXELS}):
        faces = await _detect_scaled(picture, pixels, job)
        if has_face(faces) or picture.shape[0] * picture.shape[1] <= pixels:
            return faces
    return (await detect_batch(picture[None], job))[0]


async def detect_in_roi(picture: Picture, box: Floats, job: JobContext) -> Detections:
    """The faces around a box FP32 [4] of a picture UINT8 [H,W,3]; boxes are of the whole picture."""
    rows, columns = roi(box, picture.shape[1], picture.shape[0])
    boxes, scores = await _detect_scaled(picture[rows, columns], ROI_PIXELS, job)
    left, top = columns.start, rows.start
    moved = np.where((scores > 0)[:, None], boxes + np.array((left, top, left, top), np.float32), boxes)
    return moved.astype(np.float32), scores


def has_face(faces: Detections) -> bool:
    """Whether there is a face at all."""
    return bool(faces[1][0] > 0)


def roi(box: Floats, width: int, height: int) -> tuple[slice, slice]:
    """Rows and columns around a box FP32 [4], on the grid, within a picture of this size."""
    side = float(max(box[2] - box[0], box[3] - box[1]))
    slices = []
    for low, high, size in ((box[1], box[3], height), (box[0], box[2], width)):
        first = max(0, int((low - side * ROI_MARGIN) // GRID * GRID))
        first = min(first, max(0, (size - 1) // GRID * GRID))  # of a box outside, the nearest part inside
        last = min(size, int(-((high + side * ROI_MARGIN) // -GRID) * GRID))
        slices.append(slice(first, max(last, min(size, first + GRID))))
    return slices[0], slices[1]


async def _detect_scaled(picture: Picture, pixels: int, job: JobContext) -> Detections:
    """The faces of a picture that is brought to so many pixels, in the coordinates of the picture as it was."""
    height, width = picture.shape[:2]
    size = limits.fit_within(width, height, pixels)
    if size == (width, height):
        return (await detect_batch(picture[None], job))[0]
    small = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    ((boxes, scores),) = await detect_batch(small[None], job)
    across, down = width / size[0], height / size[1]
    return (boxes * np.array((across, down, across, down), np.float32)).astype(np.float32), scores
