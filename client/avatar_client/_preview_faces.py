"""Find the faces of a frame, and choose the one that would speak: as the service does it, by calls of `detect_faces`.

The service's own search is in its `avatar.faces`, which is not installed with the client: a test of the project
compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ._errors import InvalidRequest
from ._models import Boxes, Floats, Images
from ._preview_options import Sides, View

SEARCH_PIXELS, ROI_PIXELS = 640 * 480, 1_000_000  # a frame, and the region of a face, are scaled down to these first
ROI_MARGIN, GRID = 0.3, 128  # of the region around a face: its share of the box's side, and where it starts
MIN_SIDE = 32  # pixels that the detector needs
MATCH_IOU = 0.2  # of the boxes of one face in two frames

Image = Images  # one frame, UINT8 [H,W,3] BGR
Detect = Callable[[Images], tuple[Floats, Floats]]
Resize = Callable[[Image, tuple[int, int]], Image]  # to width and height, each pixel the mean of its area


@dataclass(frozen=True)
class Found:
    """What a frame shows.

    Attributes:
        boxes: FP32 [F,4], x1 y1 x2 y2 of all faces from left to right; scores: FP32 [F].
        chosen: the face that speaks, an index of these; None if there is none, or its box was given.
        box: INT32 [4], x1 y1 x2 y2 with the pads: what is replaced; None without a face.
    """

    boxes: Floats
    scores: Floats
    chosen: int | None = None
    box: Boxes | None = None

    @property
    def sides(self) -> Sides | None:
        """Return the box as the form's `box` has it."""
        return None if self.box is None else sides_of(self.box)


def sides_of(box: Floats | Boxes) -> Sides:
    """Return x1 y1 x2 y2 as top, bottom, left, right in whole pixels."""
    left, top, right, bottom = (max(0, int(each)) for each in box)
    return top, bottom, left, right


class FaceFinder:
    """Finds the faces of frames, and follows the chosen one from frame to frame."""

    def __init__(self, detect: Detect, resize: Resize, view: View) -> None:
        self._detect, self._resize, self._view = detect, resize, view
        self._last: Floats | None = None

    def find(self, frame: Image) -> Found:
        """Return what a frame shows. Raises AvatarClientError; InvalidRequest where `face` or `box` does not fit."""
        height, width = frame.shape[:2]
        if self._view.box is not None:
            top, bottom, left, right = self._view.box
            if bottom > height or right > width:
                raise InvalidRequest(f"box: must lie inside the {width}x{height} image")
            nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
            return Found(*nothing, box=np.array([left, top, right, bottom], np.int32))
        boxes, scores = self._search(frame)
        order = np.argsort((boxes[:, 0] + boxes[:, 2]) / 2, kind="stable")
        if not len(boxes):
            return Found(boxes, scores)
        best_first = self._chosen(boxes)
        chosen = int(np.flatnonzero(order == best_first)[0])
        face = self._refined(frame, boxes[best_first])
        self._last = face
        return Found(boxes[order], scores[order], chosen, self._padded(face, width, height))

    def _search(self, frame: Image) -> tuple[Floats, Floats]:
        """Return the faces in the whole frame, best first: first in a smaller image, if `detection` is fast."""
        if not self._view.exact:
            boxes, scores = self._scaled(frame, SEARCH_PIXELS)
            if len(boxes) or frame.shape[0] * frame.shape[1] <= SEARCH_PIXELS:
                return boxes, scores
        return self._at_full_size(frame)

    def _refined(self, frame: Image, face: Floats) -> Floats:
        """Return the face as it is found in its surroundings at the frame's own size."""
        height, width = frame.shape[:2]
        if self._view.exact or height * width <= SEARCH_PIXELS:
            return face
        rows, columns = region(face, width, height)
        boxes, _ = self._scaled(frame[rows, columns], ROI_PIXELS)
        boxes = (boxes + np.array((columns.start, rows.start) * 2, np.float32)).astype(np.float32)
        found = matched(face, boxes)
        return face if found is None else boxes[found]

    def _scaled(self, image: Image, pixels: int) -> tuple[Floats, Floats]:
        height, width = image.shape[:2]
        if width * height <= pixels:
            return self._at_full_size(image)
        factor = (pixels / (width * height)) ** 0.5
        size = max(1, int(width * factor)), max(1, int(height * factor))
        boxes, scores = self._at_full_size(self._resize(image, size))
        scale = np.array((width / size[0], height / size[1]) * 2, np.float32)
        return (boxes * scale).astype(np.float32), scores

    def _at_full_size(self, image: Image) -> tuple[Floats, Floats]:
        padding = [(0, max(0, MIN_SIDE - side)) for side in image.shape[:2]]
        padded = np.pad(image, (*padding, (0, 0))) if any(each[1] for each in padding) else image
        boxes, scores = self._detect(np.ascontiguousarray(padded)[None])
        return boxes[0][scores[0] > 0], scores[0][scores[0] > 0]

    def _chosen(self, boxes: Floats) -> int:
        """Return the index of the face that the option means, of boxes that are sorted best first."""
        if self._last is not None and (again := matched(self._last, boxes)) is not None:
            return again
        x1, y1, x2, y2 = boxes.T
        center_x, center_y = (x1 + x2) / 2, (y1 + y2) / 2
        face = self._view.face
        if isinstance(face, tuple):
            x, y = face
            outside = np.maximum(0, np.maximum(x1 - x, x - x2)) + np.maximum(0, np.maximum(y1 - y, y - y2))
            return int(np.argmin(outside * 1e6 + np.hypot(center_x - x, center_y - y)))
        if isinstance(face, int):
            if face >= len(boxes):
                raise InvalidRequest(f"face: no face with index {face}; {len(boxes)} found, counted from 0")
            return int(np.argsort(center_x, kind="stable")[face])
        largest, left, right = np.argmax((x2 - x1) * (y2 - y1)), np.argmin(center_x), np.argmax(center_x)
        return {"best": 0, "largest": int(largest), "left": int(left), "right": int(right)}[face]

    def _padded(self, face: Floats, width: int, height: int) -> Boxes | None:
        """Return the box in whole pixels with the pads, inside the image; None if nothing of it is left."""
        top, bottom, left, right = self._view.pads
        grown = np.maximum(face, 0).astype(np.int32) + np.array((-left, -top, right, bottom), np.int32)
        box = np.clip(grown, 0, (width, height, width, height)).astype(np.int32)
        return box if (box[:2] < box[2:]).all() else None


def region(box: Floats, width: int, height: int) -> tuple[slice, slice]:
    """Return the rows and columns around a box FP32 [4], on the grid, inside an image of this size."""
    side = float(max(box[2] - box[0], box[3] - box[1]))
    slices = []
    for low, high, size in ((box[1], box[3], height), (box[0], box[2], width)):
        first = max(0, int((low - side * ROI_MARGIN) // GRID * GRID))
        first = min(first, max(0, (size - 1) // GRID * GRID))
        last = min(size, int(-((high + side * ROI_MARGIN) // -GRID) * GRID))
        slices.append(slice(first, max(last, min(size, first + GRID))))
    return slices[0], slices[1]


def matched(box: Floats, boxes: Floats) -> int | None:
    """Return the index of the box that overlaps most with `box`; None if none overlaps enough."""
    if not len(boxes):
        return None
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.maximum(0, high - low), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2]) - shared
    overlaps = shared / np.maximum(areas, 1e-6)
    nearest = int(np.argmax(overlaps))
    return nearest if overlaps[nearest] > MATCH_IOU else None
