"""An avatar that is ready to speak live: what is done once, and what each frame takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np

from lipsync import tensors
from lipsync.arrays import Box, Image, Images
from lipsync.blend import feather
from lipsync.crop import crop, paste

from ..context import JobContext
from ..faces.locator import Tracker
from ..media.image import StillImage
from ..options import Blend, ExtendMode, Options
from ..request import AvatarRequest
from ..source import load_source

FORMATS = ("bgr", "jpeg", "mouth")
JPEG_QUALITY = 90


@dataclass(frozen=True)
class LiveAvatar:
    """An avatar, ready to speak: everything that does not change from frame to frame.

    Attributes:
        pictures: BGR [H,W,3] each, shown in turn.
        boxes: INT32 [4] each; None where a picture shows no face.
        crops: UINT8 [n,96,96,3], what the net sees of each.
        fps: exact.
        options: as the session's first request has them.
        form: one of `FORMATS`.
        stand_ins: models that run on stand-in checkpoints.
    """

    pictures: list[Image]
    boxes: list[Box | None]
    crops: Images
    fps: Fraction
    options: Options
    frame_format: str
    stand_ins: tuple[str, ...]

    def number(self, index: int) -> int:
        """Which picture is shown as frame `index`: the option `length` says what follows the last one."""
        count = len(self.pictures)
        if self.options.extend is ExtendMode.HOLD:
            return min(index, count - 1)
        if self.options.extend is ExtendMode.LOOP or count == 1:
            return index % count
        place = index % (2 * count - 2)  # back and forth, the picture at which it turns once
        return min(place, 2 * count - 2 - place)


async def prepare(asked: AvatarRequest, job: JobContext, form: str, make_room: Callable[[int], None]) -> LiveAvatar:
    """Read the avatar and find its face; `make_room` is told how many bytes its pictures take, and may refuse.

    Raises as `pipeline.render`.
    """
    seen = await load_source(asked, job)
    avatar = seen.avatar
    count = 1 if isinstance(avatar, StillImage) else avatar.frame_count
    make_room(count * 3 * (avatar.width * avatar.height + tensors.FACE_SIZE**2))
    pictures: list[Image] = []
    boxes: list[Box | None] = []
    async with aclosing(Tracker(avatar, count, job, seen.faces).frames()) as frames:
        async for picture, box in frames:
            pictures.append(picture)
            boxes.append(box)
    crops = await asyncio.to_thread(_crops, pictures, boxes)
    return LiveAvatar(pictures, boxes, crops, avatar.fps, asked.options, form, seen.about.stand_ins)


def _crops(pictures: list[Image], boxes: list[Box | None]) -> Images:
    crops = np.zeros((len(pictures), tensors.FACE_SIZE, tensors.FACE_SIZE, 3), np.uint8)
    for n, (picture, box) in enumerate(zip(pictures, boxes, strict=True)):
        if box is not None:
            crops[n] = crop(picture[None], box[None])[0]
    return crops


def compose_frame(face: LiveAvatar, number: int, mouth: Image | None) -> dict[str, Images | Box]:
    """A frame's outputs but for its index."""
    picture, box = face.pictures[number], face.boxes[number]
    if mouth is None or box is None:
        box = np.zeros(4, np.int32)
    elif face.options.blend is Blend.FEATHER:
        picture = feather(picture, box, mouth)
    elif face.frame_format == "mouth":  # all of it, and nothing else, is pasted over
        x1, y1, x2, y2 = box.tolist()
        whole = np.array([[0, 0, x2 - x1, y2 - y1]], np.int32)
        return {"frame": paste(picture[None, y1:y2, x1:x2], whole, mouth[None])[0], "box": box}
    else:
        picture = paste(picture[None], box[None], mouth[None])[0]
    if face.frame_format == "mouth":
        x1, y1, x2, y2 = box.tolist()
        return {"frame": picture[y1:y2, x1:x2], "box": box}
    if face.frame_format == "jpeg":
        _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        return {"jpeg": data.astype(np.uint8), "box": box}
    return {"frame": picture, "box": box}
