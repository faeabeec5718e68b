"""Decode, transform and draw frames with OpenCV, which is an extra of the client: `talking-avatar-client[preview]`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ._errors import InvalidRequest
from ._preview_faces import Found, Image
from ._preview_options import View

WORK_PIXELS = 3840 * 2160  # the service scales larger frames down, unless its settings say otherwise
MIN_SIDE = 96  # pixels of the shorter side; a smaller image is enlarged
STILL_SIDE, TILE_SIDE, COLUMNS, GAP = 1600, 320, 4, 8  # pixels of the picture, and tiles in a row
GREEN, GRAY, RED, WHITE, BLACK = (90, 220, 60), (200, 200, 200), (60, 60, 235), (255, 255, 255), (0, 0, 0)  # BGR
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_UNREADABLE = "face: neither an image nor a video that OpenCV reads; convert it to PNG or mp4"


@dataclass(frozen=True)
class Frame:
    """One frame of the file.

    Attributes:
        index: 0 for the first.
        time: seconds; None in an image.
        image: UINT8 [H,W,3] BGR, upright.
    """

    index: int
    time: float | None
    image: Image


class Source:
    """A face file: an image, or a video of which some frames are read.

    Attributes:
        frames: in the file; 1 in an image.
        fps: of a video; None for an image.
    """

    def __init__(self, path: Path) -> None:
        """Open a file. Raises OSError, or InvalidRequest where it cannot be decoded."""
        self._path = path
        data = np.frombuffer(path.read_bytes(), np.uint8)
        self._still = _decode(data) if len(data) else None
        self.frames, self.fps = 1, None
        if self._still is None:
            video = cv2.VideoCapture(str(path))
            self.frames, self.fps = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), video.get(cv2.CAP_PROP_FPS) or 25.0
            opened = video.isOpened()
            video.release()
            if not opened or self.frames < 1:
                raise InvalidRequest(_UNREADABLE)

    def read(self, count: int) -> Iterator[Frame]:
        """Yield up to `count` frames, at even distances from the first to the last. Raises InvalidRequest."""
        if self._still is not None:
            yield Frame(0, None, _fit(self._still, still=True))
            return
        video, read = cv2.VideoCapture(str(self._path)), 0
        try:
            for index in np.unique(np.linspace(0, self.frames - 1, min(count, self.frames)).round().astype(int)):
                video.set(cv2.CAP_PROP_POS_FRAMES, int(index))
                is_read, image = video.read()
                if is_read:  # the number of frames is sometimes an estimate
                    read += 1
                    fitting = _fit(np.asarray(image, np.uint8), still=False)
                    yield Frame(int(index), int(index) / (self.fps or 25.0), fitting)
        finally:
            video.release()
        if not read:
            raise InvalidRequest(_UNREADABLE)


def _decode(data: NDArray[np.uint8]) -> Image | None:
    """Return an image upright, over white where it is transparent; None if it is none."""
    layers = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if layers is not None and layers.ndim == 3 and layers.shape[2] == 4 and layers.dtype == np.uint8:
        alpha = layers[..., 3:].astype(np.float32) / 255
        return np.asarray(layers[..., :3] * alpha + 255 * (1 - alpha), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return None if image is None else np.asarray(image, np.uint8)


def _fit(image: Image, *, still: bool) -> Image:
    """Return the image in the size that the service works on: smaller, or larger if it is a tiny still."""
    height, width = image.shape[:2]
    if width * height > WORK_PIXELS:
        factor = (WORK_PIXELS / (width * height)) ** 0.5
        return resized(image, (max(1, int(width * factor)), max(1, int(height * factor))))
    factor = MIN_SIDE / min(width, height)
    size = round(width * factor), round(height * factor)
    if still and factor > 1 and size[0] * size[1] <= WORK_PIXELS:
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    return image


def resized(image: Image, size: tuple[int, int]) -> Image:
    """Return the image with this width and height; each pixel is the mean of its area."""
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def transformed(image: Image, view: View) -> Image:
    """Return a frame as the options say: resized, rotated, cropped, limited in height. Raises InvalidRequest."""
    height, width = (side // view.resize_factor for side in image.shape[:2])
    if min(width, height) < 1:
        raise InvalidRequest("resize_factor: too large for the image: nothing would be left of it")
    if view.resize_factor > 1:
        image = np.asarray(cv2.resize(image, (width, height)), np.uint8)
    if view.rotate:
        image = np.rot90(image, -1)
    height, width = image.shape[:2]
    top, bottom, left, right = view.crop
    image = image[top : height if bottom == -1 else bottom, left : width if right == -1 else right]
    if not image.size:
        raise InvalidRequest(f"crop: outside the {width}x{height} image")
    if view.max_height and image.shape[0] > view.max_height:
        wide = max(1, round(image.shape[1] * view.max_height / image.shape[0]))
        return resized(np.ascontiguousarray(image), (wide, view.max_height))
    return np.ascontiguousarray(image)


def drawn(frame: Frame, found: Found, side: int) -> Image:
    """Return a picture of the frame, its longer side at most `side`, with the boxes of its faces."""
    height, width = frame.image.shape[:2]
    scale = min(1.0, side / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = resized(frame.image, size) if scale < 1 else frame.image.copy()
    unit = max(1, round(max(size) / 600))  # of lines and letters
    for number, (box, score) in enumerate(zip(found.boxes, found.scores, strict=True)):
        if number != found.chosen:
            _rectangle(picture, box * scale, GRAY, unit)
        if side > TILE_SIDE:
            x, y = box[:2] * scale
            _write(picture, f"{number}: {score:.2f}", (round(float(x)), round(float(y)) - 4 * unit), unit)
    if found.box is not None:
        _rectangle(picture, found.box * scale, GREEN, 2 * unit)
    else:
        cv2.rectangle(picture, (0, 0), (size[0] - 1, size[1] - 1), RED, 4 * unit)
    words = [] if frame.time is None else [f"{frame.time:.1f} s"]
    words += [] if found.box is not None else ["no face"]
    if words:
        _write(picture, ", ".join(words), (4 * unit, size[1] - 5 * unit), unit)
    return picture


def _rectangle(picture: Image, box: NDArray[np.generic], color: tuple[int, int, int], unit: int) -> None:
    """Draw a box with a dark edge, which is seen on every background."""
    x1, y1, x2, y2 = (round(float(each)) for each in box)
    cv2.rectangle(picture, (x1, y1), (x2 - 1, y2 - 1), BLACK, unit + 2, cv2.LINE_AA)
    cv2.rectangle(picture, (x1, y1), (x2 - 1, y2 - 1), color, unit, cv2.LINE_AA)


def _write(picture: Image, text: str, place: tuple[int, int], unit: int) -> None:
    """Write a text at its lower left corner, inside the picture."""
    scale = 0.4 * unit
    (width, height), _ = cv2.getTextSize(text, _FONT, scale, unit)
    x = max(2, min(place[0], picture.shape[1] - width - 2))
    y = max(height + 2, min(place[1], picture.shape[0] - 2))
    cv2.putText(picture, text, (x, y), _FONT, scale, BLACK, unit + 2, cv2.LINE_AA)
    cv2.putText(picture, text, (x, y), _FONT, scale, WHITE, unit, cv2.LINE_AA)


def contact_sheet(tiles: list[Image]) -> Image:
    """Return the tiles in rows, on a dark ground."""
    columns = min(COLUMNS, len(tiles))
    width, height = max(tile.shape[1] for tile in tiles), max(tile.shape[0] for tile in tiles)
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), 40, np.uint8)
    for n, tile in enumerate(tiles):
        y, x = GAP + n // columns * (height + GAP), GAP + n % columns * (width + GAP)
        sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return sheet


def encoded(picture: Image, suffix: str) -> bytes:
    """Return the picture as a file: a JPEG for its usual suffixes, otherwise a PNG."""
    is_jpeg = suffix.lower() in (".jpg", ".jpeg")
    done, data = cv2.imencode(".jpg" if is_jpeg else ".png", picture)
    if not done:
        raise InvalidRequest("the picture cannot be encoded")
    return bytes(data)
