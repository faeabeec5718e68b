"""Locate faces in small videos, and identify the frames of a result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import aclosing
from pathlib import Path

import numpy as np

from avatar.context import JobContext, RequestLogger
from avatar.faces.locator import LocatedFrame, locate_faces
from avatar.limits import LIMITS
from avatar.options import Options
from avatar.testing import FakeInference
from lipsync.arrays import Boxes, Image, Images
from tests.support.media import probe_video

from .media import find_square


async def locate(
    path: Path, frame_count: int, options: Options, models: FakeInference | None = None
) -> list[LocatedFrame]:
    """Locate the face in all frames of the result; by default the white square is the face."""
    video = await probe_video(path, options, LIMITS)
    job = JobContext(models or FakeInference(find_square), RequestLogger("test"), options)
    async with aclosing(locate_faces(video, frame_count, job)) as frames:
        return [frame async for frame in frames]


def boxes_of(frames: Sequence[LocatedFrame]) -> Boxes:
    """Return the boxes INT32 [n,4] of frames that all have one."""
    boxes = [frame.box for frame in frames if frame.box is not None]
    assert len(boxes) == len(frames)
    return np.array(boxes, np.int32)


def source_indices(images: Iterable[Image], source: Images) -> list[int]:
    """Return the index of the source frame that each image resembles most."""
    return [int(np.argmin([np.abs(image.astype(int) - frame).sum() for frame in source])) for image in images]


def without_face(frames: Images, *indices: int) -> Images:
    """Return the frames, with those at the indices darkened, so that they have no white square."""
    frames = frames.copy()
    frames[list(indices)] = frames[list(indices)] // 2
    return frames
