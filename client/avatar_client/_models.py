"""The single models, in calls of the sizes that they accept.

Calls of `lipsync` and `face_paste` send only the rectangle that contains their boxes, with the boxes moved into it: the
result is the same, and the rectangle is often a twentieth of the frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ._errors import InvalidRequest
from ._schema import (
    DETECT_FACES,
    FACE_PASTE,
    FACE_SIZE,
    FACES,
    MAX_FRAMES,
    MAX_WINDOWS,
    MEL_BANDS,
    MEL_SPECTROGRAM,
    NUMPY,
    WINDOW_COLUMNS,
    Array,
    Model,
)

Images = NDArray[np.uint8]
Boxes = NDArray[np.int32]
Floats = NDArray[np.float32]

MAX_ANSWER_BYTES = 512 << 20  # of one call of `face_paste`
FRAMES_SHAPE, MOUTHS_SHAPE = (-1, -1, -1, 3), (-1, FACE_SIZE, FACE_SIZE, 3)


class Infer(Protocol):
    """As `InferCaller.infer`."""

    def __call__(self, model: Model, *inputs: Array, output_shape: tuple[int, ...] | None = None) -> list[Array]:
        """Make one inference."""


def detect_faces(infer: Infer, frames: Images) -> tuple[Floats, Floats]:
    """As `AvatarClient.detect_faces`."""
    check("frames", "UINT8", FRAMES_SHAPE, frames)
    boxes, scores = np.zeros((len(frames), FACES, 4), np.float32), np.zeros((len(frames), FACES), np.float32)
    for part in _batches(len(frames), MAX_FRAMES):
        boxes[part], scores[part] = infer(DETECT_FACES, frames[part])
    return boxes, scores


def mel(infer: Infer, audio: Floats, fps: float) -> Floats:
    """As `AvatarClient.mel`."""
    check("audio", "FP32", (-1,), audio)
    (windows,) = infer(MEL_SPECTROGRAM, audio, np.array([fps], np.float64))
    return windows


def lipsync(infer: Infer, model: Model, frames: Images, boxes: Boxes, windows: Floats) -> Images:
    """As `AvatarClient.lipsync`."""
    check("mel", "FP32", (-1, MEL_BANDS, WINDOW_COLUMNS), windows)
    _check_pairs(frames, boxes, len(windows))
    mouths = np.empty((len(windows), FACE_SIZE, FACE_SIZE, 3), np.uint8)
    for part in _batches(len(windows), MAX_WINDOWS):
        faces, moved, _ = _crop_to_boxes(_rows(frames, part), _rows(boxes, part))
        (mouths[part],) = infer(model, faces, moved, windows[part], output_shape=mouths[part].shape)
    return mouths


def paste(infer: Infer, frames: Images, boxes: Boxes, mouths: Images) -> Images:
    """As `AvatarClient.paste`."""
    check("mouths", "UINT8", MOUTHS_SHAPE, mouths)
    _check_pairs(frames, boxes, len(mouths))
    pasted = np.array(np.broadcast_to(frames, (len(mouths), *frames.shape[1:])))
    frame_bytes = max(1, pasted[:1].nbytes)  # a box may be as large as its frame
    for part in _batches(len(mouths), min(MAX_WINDOWS, max(1, MAX_ANSWER_BYTES // frame_bytes))):
        faces, moved, (rows, columns) = _crop_to_boxes(_rows(frames, part), _rows(boxes, part))
        place = pasted[part, rows, columns]
        (place[:],) = infer(FACE_PASTE, faces, moved, mouths[part], output_shape=place.shape)
    return pasted


def check(name: str, dtype: str, shape: tuple[int, ...], array: Array) -> None:
    """Reject an array of another type or shape, with the server's sentence; -1 stands for any length.

    Raises:
        InvalidRequest: the array does not match.
    """
    have = np.shape(array)
    fits = len(have) == len(shape) and all(want in (-1, side) for want, side in zip(shape, have, strict=True))
    if not isinstance(array, np.ndarray) or array.dtype != NUMPY[dtype] or not fits:
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise InvalidRequest(f"{name}: {dtype} {list(shape)} expected, got {kind} {list(have)}")


def _check_pairs(frames: Images, boxes: Boxes, count: int) -> None:
    """Reject counts and boxes that do not match: the server sees only the rectangle, and could not detect them."""
    check("frames", "UINT8", FRAMES_SHAPE, frames)
    check("boxes", "INT32", (-1, 4), boxes)
    for name, have in (("frames", len(frames)), ("boxes", len(boxes))):
        if have not in (1, count):
            raise InvalidRequest(f"{name}: 1 or {count} expected, got {have}")
    height, width = frames.shape[1:3]
    x1, y1, x2, y2 = boxes.T
    bad = (x1 < 0) | (y1 < 0) | (x2 > width) | (y2 > height) | (x1 >= x2) | (y1 >= y2)
    if bad.any():
        n = int(np.argmax(bad))
        raise InvalidRequest(f"boxes[{n}]: {boxes[n].tolist()} is empty or outside the {width}x{height} image")


def _crop_to_boxes(frames: Images, boxes: Boxes) -> tuple[Images, Boxes, tuple[slice, slice]]:
    """Return every frame cut to the rectangle that contains the boxes, the boxes in it, and its rows and columns."""
    left, top = boxes[:, :2].min(axis=0)
    right, bottom = boxes[:, 2:].max(axis=0)
    moved = (boxes - np.array((left, top, left, top))).astype(np.int32)
    return frames[:, top:bottom, left:right], moved, (slice(top, bottom), slice(left, right))


def _rows(array: Array, part: slice) -> Array:
    """Return a batch's rows; an only row serves every batch."""
    return array if len(array) == 1 else array[part]


def _batches(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
