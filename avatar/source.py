"""How the avatar appears: what its file is, before which background, and what is remembered of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lipsync.tensors import FACE_FILE

from .background.replacement import BackgroundReplacer
from .context import JobContext
from .errors import InvalidField
from .inference.protocol import ModelInfo
from .media import image, video
from .media.transform import Framing
from .request import AvatarRequest
from .resources import avatar_cache

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

    avatar: image.Still | video.Video
    alpha: Alpha
    scenery: BackgroundReplacer
    faces: avatar_cache.FaceBoxCache
    about: ModelInfo


async def appear(request: AvatarRequest, job: JobContext) -> Appearance:
    """Look at the request's face and its background. Raises as `pipeline.render`."""
    scenery = BackgroundReplacer(request, job)
    about = await job.models.model_info(job.options.model)
    faces, looks = await asyncio.to_thread(_remembered, request, scenery, about, job)
    avatar, alpha = await _look(request, scenery, looks, job)
    return Appearance(avatar, alpha, scenery, faces, about)


def _remembered(
    request: AvatarRequest, scenery: BackgroundReplacer, about: ModelInfo, job: JobContext
) -> tuple[avatar_cache.FaceBoxCache, avatar_cache.BackgroundCache]:
    """What the cache, if there is one, knows of this avatar."""
    if job.cache is None or (job.options.box and not scenery.enabled):  # nothing to ask it, and files may be large
        return avatar_cache.FaceBoxCache(), avatar_cache.BackgroundCache()
    options, limits = job.options, job.limits
    picture = (avatar_cache.file_digest(request.face_path), request.is_still, *avatar_cache.transform_key(options), limits.max_work_pixels)
    behind = (*scenery.cache_key(), about.segmenter) if scenery.enabled else ()
    looked = (options.face, options.detection, about.detector)
    return (
        avatar_cache.FaceBoxCache(job.cache, avatar_cache.cache_key(*picture, *behind, *looked)),
        avatar_cache.BackgroundCache(job.cache, avatar_cache.cache_key(*picture, *behind)),
    )


async def _look(
    request: AvatarRequest, scenery: BackgroundReplacer, looks: avatar_cache.BackgroundCache, job: JobContext
) -> tuple[image.Still | video.Video, Alpha]:
    """What the face is, by its content: a picture, its alpha channel beside it, or else a video."""
    is_picture = await asyncio.to_thread(image.is_picture, request.face_path)
    if is_picture and (request.is_still or not await asyncio.to_thread(image.is_gif, request.face_path)):
        return await _still(request, scenery, looks, job)
    try:
        return await video.look(request.face_path, job), None
    except InvalidField as error:
        if request.is_still and error.reason == video.NOT_A_VIDEO:
            raise InvalidField(FACE_FILE, image.NOT_A_PICTURE) from error
        raise


async def _still(
    request: AvatarRequest, scenery: BackgroundReplacer, looks: avatar_cache.BackgroundCache, job: JobContext
) -> tuple[image.Still, Alpha]:
    with job.timer.stage("decode"):
        under = scenery.color or image.WHITE
        picture = await asyncio.to_thread(image.read, request.face_path, job.limits, under)
    framing = Framing(picture.shape[1], picture.shape[0], job.options)
    (picture,) = await asyncio.to_thread(framing, picture[None])
    picture, alpha = await scenery.replace_still(picture, looks)
    return image.Still(picture, job.options.fps), alpha
