"""The avatar of a live session: what is prepared once, and how each of its frames is composed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np

from lipsync import tensors
from lipsync.arrays import Array, Box, Image, Images
from lipsync.blend import feather
from lipsync.face_crop import crop, paste

from ..context import JobContext
from ..faces.locator import locate_faces
from ..media.image import StillImage
from ..media.playback import frame_index
from ..options import Blend, Options
from ..request import AvatarRequest
from ..source import load_source

FORMATS = ("bgr", "jpeg", "mouth")
JPEG_QUALITY = 90


@dataclass(frozen=True)
class LiveAvatar:
    """An avatar that is ready to speak: everything that does not change from frame to frame.

    Attributes:
        images: BGR [H,W,3] each, the frames of the avatar's file.
        boxes: INT32 [4] each; None where an image shows no face.
        crops: UINT8 [n,96,96,3], the faces as the generator takes them.
        fps: exact.
        options: those that it was prepared with.
        stand_ins: names of the models that run on stand-in checkpoints.
    """

    images: list[Image]
    boxes: list[Box | None]
    crops: Images
    fps: Fraction
    options: Options
    stand_ins: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes that it takes in memory."""
        return avatar_bytes(len(self.images), *self.images[0].shape[:2])

    def image_index(self, position: int) -> int:
        """Return which image is shown at a position of the avatar's motion, by the option `length`."""
        return frame_index(position, len(self.images), self.options.extend)

    def compose_frame(self, image_index: int, mouth: Image | None, frame_format: str) -> dict[str, Array]:
        """Return a frame's outputs, all but its index: the image with the generated face in its box.

        Args:
            image_index: the image to compose the frame from.
            mouth: UINT8 [96,96,3] BGR, the generated face; None leaves the image unchanged.
            frame_format: one of `FORMATS`.
        """
        image, box = self.images[image_index], self.boxes[image_index]
        if mouth is None or box is None:
            box = np.zeros(4, np.int32)
        elif self.options.blend is Blend.FEATHER:
            image = feather(image, box, mouth)
        elif frame_format == "mouth":  # only the inside of the box is sent, and all of it is pasted over
            x1, y1, x2, y2 = box.tolist()
            inside = np.array([[0, 0, x2 - x1, y2 - y1]], np.int32)
            return {"frame": paste(image[None, y1:y2, x1:x2], inside, mouth[None])[0], "box": box}
        else:
            image = paste(image[None], box[None], mouth[None])[0]
        return _outputs(image, box, frame_format)


def avatar_bytes(count: int, height: int, width: int) -> int:
    """Return how much memory an avatar of `count` images takes."""
    return count * 3 * (width * height + tensors.FACE_SIZE**2)


def _outputs(image: Image, box: Box, frame_format: str) -> dict[str, Array]:
    if frame_format == "mouth":
        x1, y1, x2, y2 = box.tolist()
        return {"frame": image[y1:y2, x1:x2], "box": box}
    if frame_format == "jpeg":
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        return {"jpeg": data.astype(np.uint8), "box": box}
    return {"frame": image, "box": box}


async def prepare(request: AvatarRequest, job: JobContext, reserve: Callable[[int], None]) -> LiveAvatar:
    """Read the avatar and locate its face in each of its frames.

    Args:
        request: names the avatar's file and its options.
        job: what the stages of the job share.
        reserve: called with the number of bytes that the avatar will take in memory; may raise.

    Raises:
        AvatarError: as `pipeline.render`, or from `reserve`.
    """
    loaded = await load_source(request, job)
    job = job.served_as(loaded.model_info)
    source = loaded.media
    count = 1 if isinstance(source, StillImage) else source.frame_count
    reserve(avatar_bytes(count, source.height, source.width))
    images: list[Image] = []
    boxes: list[Box | None] = []
    async with aclosing(locate_faces(source, count, job, loaded.face_boxes)) as frames:
        async for frame in frames:
            images.append(frame.image)
            boxes.append(frame.box)
    crops = await asyncio.to_thread(_crops, images, boxes)
    return LiveAvatar(images, boxes, crops, source.fps, request.options, loaded.model_info.stand_ins)


def _crops(images: list[Image], boxes: list[Box | None]) -> Images:
    crops = np.zeros((len(images), tensors.FACE_SIZE, tensors.FACE_SIZE, 3), np.uint8)
    for n, (image, box) in enumerate(zip(images, boxes, strict=True)):
        if box is not None:
            crops[n] = crop(image[None], box[None])[0]
    return crops
