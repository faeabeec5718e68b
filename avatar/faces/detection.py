"""Detect faces with S3FD: in whole frames like the original, or faster: in smaller frames and around a known face."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeAlias

import cv2
import numpy as np

from lipsync.arrays import Floats, Image, Images

from .. import limits
from ..context import JobContext
from ..inference.protocol import ServedNet
from ..streams import map_concurrent

Detections: TypeAlias = tuple[Floats, Floats]  # of one frame: boxes [16,4] and scores [16], best first; 0 pads
Known: TypeAlias = "dict[int, asyncio.Future[Detections | None]]"  # by frame index; None: not detected after all

# What one detection call holds: the detector's largest batch of frames of this size, or fewer larger ones. On a CPU
# these are four frames of 640×480 or one of 720p, on a GPU sixteen or four. More would only cost the server memory: the
# first layer alone takes 512 bytes per pixel.
FRAME_PIXELS = 640 * 480
CONCURRENCY = 2  # detection calls in flight: one is computed while the frames of the next one are sent
GPU_CONCURRENCY = 3  # on a GPU: it is served by two instances
GPU_FRAMES = ((1024, 4), (1920, 1))  # a longer side, and the frames of such a call that a TensorRT plan takes
# A whole frame is first scaled down to this. S3FD's finest cells are 4 pixels, so a face of a twelfth of the frame's
# height is still found; if there is none, the frame is searched at its own size.
SEARCH_PIXELS = 640 * 480
COARSE_PIXELS = 320 * 240  # enough to tell whether there is a face
# The region of interest around a face extends beyond its box by this share of the box's side, in each direction: what
# S3FD needs to locate a face is inside it.
ROI_MARGIN = 0.3
# The region starts on this grid, that of S3FD's coarsest cells. So its cells coincide with those of the whole frame,
# and the box comes out the same; and as sides are multiples of it, the regions of many jobs share a batch.
GRID = 128
MIN_SIDE = 32  # pixels; S3FD has no output for less
ROI_PIXELS = 1_000_000  # a larger region is scaled down to this


def batch_frames(width: int, height: int, net: ServedNet) -> int:
    """Return how many frames of this size one call of a detector that is served in this way takes; at least 1."""
    most = net.max_batch
    if net.on_gpu:
        most = min([most, *(frames for side, frames in GPU_FRAMES if max(width, height) > side)])
    return min(most, max(1, net.max_batch * FRAME_PIXELS // (width * height)))


def calls_in_flight(net: ServedNet) -> int:
    """Return how many detection calls a job makes at the same time."""
    return GPU_CONCURRENCY if net.on_gpu else CONCURRENCY


async def detect_batch(frames: Images, job: JobContext) -> list[Detections]:
    """Detect the faces in whole frames UINT8 [n,H,W,3]; n is at most `batch_frames`."""
    if not len(frames):
        return []
    padding = [max(0, MIN_SIDE - side) for side in frames.shape[1:3]]
    if any(padding):
        frames = np.pad(frames, ((0, 0), (0, padding[0]), (0, padding[1]), (0, 0)))
    with job.timer.stage("detection"):
        boxes, scores = await job.models.detect_faces(frames)
    return list(zip(boxes, scores, strict=True))


async def detect_every_frame(
    chunks: AsyncGenerator[Images], known: Known, job: JobContext
) -> AsyncGenerator[tuple[Image, Detections]]:
    """Yield each frame of `chunks` (UINT8 [n,H,W,3] each, n at most `batch_frames`) with the faces in it.

    Frames whose detections are in `known`, by their index, are not detected again; their entries are removed.
    """

    async def numbered() -> AsyncGenerator[tuple[int, Images]]:
        first = 0
        async with aclosing(chunks):
            async for frames in chunks:
                yield first, frames
                first += len(frames)

    async def detect(chunk: tuple[int, Images]) -> tuple[Images, list[Detections]]:
        first, frames = chunk
        new = [n for n in range(len(frames)) if first + n not in known]
        detected = iter(await detect_batch(frames[new] if len(new) < len(frames) else frames, job))
        found = {n: next(detected) for n in new}
        for n in range(len(frames)):
            if n not in found:
                given = await known.pop(first + n)
                found[n] = given or (await detect_batch(frames[n : n + 1], job))[0]
        return frames, [found[n] for n in range(len(frames))]

    concurrency = calls_in_flight(job.model_info.detector_net)
    async with aclosing(map_concurrent(numbered(), detect, concurrency)) as detected:
        async for frames, detections in detected:
            for frame, found in zip(frames, detections, strict=True):
                yield frame, found


async def detect_full_frame(image: Image, job: JobContext, first_pixels: int = SEARCH_PIXELS) -> Detections:
    """Detect the faces in an image UINT8 [H,W,3].

    The image is scaled down to `first_pixels` for the first attempt; while no face is found, it is searched at larger
    sizes, at last at its own.
    """
    for pixels in sorted({first_pixels, SEARCH_PIXELS}):
        detections = await _detect_scaled(image, pixels, job)
        if has_face(detections) or image.shape[0] * image.shape[1] <= pixels:
            return detections
    return (await detect_batch(image[None], job))[0]


async def detect_in_roi(image: Image, box: Floats, job: JobContext) -> Detections:
    """Detect the faces around a box FP32 [4] of an image UINT8 [H,W,3]; returned boxes are relative to the image."""
    rows, columns = roi(box, image.shape[1], image.shape[0])
    boxes, scores = await _detect_scaled(image[rows, columns], ROI_PIXELS, job)
    left, top = columns.start, rows.start
    moved = np.where((scores > 0)[:, None], boxes + np.array((left, top, left, top), np.float32), boxes)
    return moved.astype(np.float32), scores


def has_face(detections: Detections) -> bool:
    """Return whether there is any face."""
    return bool(detections[1][0] > 0)


def roi(box: Floats, width: int, height: int) -> tuple[slice, slice]:
    """Return the rows and columns of the region around a box FP32 [4], on the grid, inside an image of this size."""
    side = float(max(box[2] - box[0], box[3] - box[1]))
    slices = []
    for low, high, size in ((box[1], box[3], height), (box[0], box[2], width)):
        first = max(0, int((low - side * ROI_MARGIN) // GRID * GRID))
        first = min(first, max(0, (size - 1) // GRID * GRID))  # for a box outside the image: the nearest region inside
        last = min(size, int(-((high + side * ROI_MARGIN) // -GRID) * GRID))
        slices.append(slice(first, max(last, min(size, first + GRID))))
    return slices[0], slices[1]


async def _detect_scaled(image: Image, pixels: int, job: JobContext) -> Detections:
    """Detect in an image scaled down to at most `pixels`; returned boxes are in the coordinates of the image itself."""
    height, width = image.shape[:2]
    size = limits.fit_within(width, height, pixels)
    if size == (width, height):
        return (await detect_batch(image[None], job))[0]
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    ((boxes, scores),) = await detect_batch(small[None], job)
    x_scale, y_scale = width / size[0], height / size[1]
    return (boxes * np.array((x_scale, y_scale, x_scale, y_scale), np.float32)).astype(np.float32), scores
