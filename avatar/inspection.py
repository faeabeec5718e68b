"""Look at a face file without a job: whether it can be decoded, its size, and whether it shows a face."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass

from .context import JobContext
from .faces.locator import locate_faces
from .inference.protocol import InferenceClient
from .media.video import Video
from .request import AvatarRequest
from .resources.cache import Cache
from .source import load_source


@dataclass(frozen=True)
class FaceReport:
    """What a face file is.

    Attributes:
        width, height: of its frames, in pixels.
        frames: of a video, by its timestamps; None for an image.
    """

    width: int
    height: int
    frames: int | None


async def inspect_face(request: AvatarRequest, models: InferenceClient, cache: Cache | None = None) -> FaceReport:
    """Decode the image, or the first frame of the video, and detect the face in it.

    The audio of the request is not read. `cache`, if there is one, stores the boxes of an image's face for the jobs.

    Raises:
        InvalidField: the file cannot be decoded.
        FaceNotFound: no face is detected.
        Unavailable: the models or this machine fail.
    """
    job = JobContext.of(request, models, cache)
    with job.failure_logged():
        source = await load_source(request, job)
        media = source.media
        job = job.served_as(source.model_info)
        async with aclosing(locate_faces(media, 1, job, source.face_boxes)) as located:
            await anext(located)
        return FaceReport(media.width, media.height, media.frame_count if isinstance(media, Video) else None)
