"""How the avatar appears: what its file is, before which background, and what is remembered of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lipsync.tensors import FACE_FILE

from . import memory, pictures, video
from .errors import InvalidField
from .framing import Framing
from .job import Job
from .models import About
from .request import AvatarRequest
from .scenery import Scenery

Alpha = NDArray[np.uint8] | None  # [H,W]


@dataclass(frozen=True)
class Appearance:
    """An avatar that is ready to be looked at for its face.

    Attributes:
        avatar: a picture, before its background, or a video, whose background is changed frame by frame later.
        alpha: the picture's alpha channel, where it has one.
        faces: what is remembered of its faces.
        about: the nets that will work on it.
    """

    avatar: pictures.Still | video.Video
    alpha: Alpha
    scenery: Scenery
    faces: memory.Faces
    about: About


async def appear(request: AvatarRequest, job: Job) -> Appearance:
    """Look at the request's face and its background. Raises as `pipeline.render`."""
    scenery = Scenery(request, job)
    about = await job.models.about(job.options.model)
    faces, looks = await asyncio.to_thread(_remembered, request, scenery, about, job)
    avatar, alpha = await _look(request, scenery, looks, job)
    return Appearance(avatar, alpha, scenery, faces, about)


def _remembered(request: AvatarRequest, scenery: Scenery, about: About, job: Job) -> tuple[memory.Faces, memory.Looks]:
    """What the cache, if there is one, knows of this avatar."""
    if job.cache is None or (job.options.box and not scenery.is_changed):  # nothing to ask it, and files may be large
        return memory.Faces(), memory.Looks()
    options, limits = job.options, job.limits
    picture = (memory.content(request.face), request.still, *memory.seen_as(options), limits.work_pixels)
    behind = (*scenery.describe(), about.segmenter) if scenery.is_changed else ()
    looked = (options.face, options.detection, about.detector)
    return (
        memory.Faces(job.cache, memory.key(*picture, *behind, *looked)),
        memory.Looks(job.cache, memory.key(*picture, *behind)),
    )


async def _look(
    request: AvatarRequest, scenery: Scenery, looks: memory.Looks, job: Job
) -> tuple[pictures.Still | video.Video, Alpha]:
    """What the face is, by its content: a picture, its alpha channel beside it, or else a video."""
    is_picture = await asyncio.to_thread(pictures.is_picture, request.face)
    if is_picture and (request.still or not await asyncio.to_thread(pictures.is_gif, request.face)):
        return await _still(request, scenery, looks, job)
    try:
        return await video.look(request.face, job), None
    except InvalidField as error:
        if request.still and error.reason == video.NOT_A_VIDEO:
            raise InvalidField(FACE_FILE, pictures.NOT_A_PICTURE) from error
        raise


async def _still(
    request: AvatarRequest, scenery: Scenery, looks: memory.Looks, job: Job
) -> tuple[pictures.Still, Alpha]:
    with job.clock.stage("decode"):
        under = scenery.colour or pictures.WHITE
        picture = await asyncio.to_thread(pictures.read, request.face, job.limits, under)
    framing = Framing(picture.shape[1], picture.shape[0], job.options)
    (picture,) = await asyncio.to_thread(framing, picture[None])
    picture, alpha = await scenery.behind_still(picture, looks)
    return pictures.Still(picture, job.options.fps), alpha
