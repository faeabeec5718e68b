"""Cut faces out of images for the network, and paste generated faces over their boxes."""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from .arrays import Boxes, Images
from .boxes import check
from .errors import InvalidInput
from .tensors import FACE_SIZE

T = TypeVar("T", bound=np.generic)


def crop(frames: Images, boxes: Boxes, count: int | None = None) -> Images:
    """Cut the face out of each frame and scale it to 96×96 (bilinear).

    Args:
        frames: UINT8 [n,H,W,3] BGR; one frame serves all boxes.
        boxes: INT32 [m,4]; one box serves all frames.
        count: number of crops; by default the larger of the two lengths.

    Returns:
        UINT8 [count,96,96,3] BGR.

    Raises:
        InvalidInput: counts that do not fit, or a box that is empty or outside the image.
    """
    count = _count(frames, boxes, count)
    if len(frames) == len(boxes) == 1:
        return np.repeat(_crop_one(frames[0], boxes[0])[None], count, axis=0)
    pairs = zip(_spread(frames, count), _spread(boxes, count), strict=True)
    return np.stack([_crop_one(frame, box) for frame, box in pairs])


def paste(frames: Images, boxes: Boxes, mouths: Images) -> Images:
    """Paste generated faces over their whole boxes (bilinear), on a copy of the frames.

    Args:
        frames: UINT8 [n,H,W,3] BGR; one frame serves all mouths.
        boxes: INT32 [m,4]; one box serves all mouths.
        mouths: UINT8 [count,96,96,3] BGR.

    Returns:
        UINT8 [count,H,W,3] BGR.

    Raises:
        InvalidInput: for the same reasons as `crop`.
    """
    if mouths.ndim != 4 or mouths.shape[1:] != (FACE_SIZE, FACE_SIZE, 3):
        raise InvalidInput(f"mouths: UINT8 [n,{FACE_SIZE},{FACE_SIZE},3] expected, got {list(mouths.shape)}")
    count = _count(frames, boxes, len(mouths))
    result = np.array(_spread(frames, count))
    for frame, (x1, y1, x2, y2), mouth in zip(result, _spread(boxes, count), mouths, strict=True):
        frame[y1:y2, x1:x2] = cv2.resize(mouth, (int(x2 - x1), int(y2 - y1)))
    return result


def _crop_one(frame: Images, box: Boxes) -> Images:
    x1, y1, x2, y2 = box
    face: Images = cv2.resize(frame[y1:y2, x1:x2], (FACE_SIZE, FACE_SIZE))  # type: ignore[assignment]
    return face


def _count(frames: Images, boxes: Boxes, count: int | None) -> int:
    if frames.ndim != 4 or frames.shape[3] != 3:
        raise InvalidInput(f"frames: UINT8 [n,H,W,3] expected, got {list(frames.shape)}")
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InvalidInput(f"boxes: INT32 [n,4] expected, got {list(boxes.shape)}")
    if count is None:
        count = max(len(frames), len(boxes))
    for name, have in (("frames", len(frames)), ("boxes", len(boxes))):
        if not have or have not in (1, count):
            raise InvalidInput(f"{name}: {f'1 or {count}' if count > 1 else '1'} expected, got {have}")
    check(boxes, frames.shape[2], frames.shape[1])
    return count


def _spread(array: NDArray[T], count: int) -> NDArray[T]:
    """Return a view of `array` with `count` rows; a single row is repeated."""
    return np.broadcast_to(array, (count, *array.shape[1:]))
