"""Load the image or video of the avatar, with what the cache holds of it, and replace a still's background."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lipsync.tensors import BACKGROUND, FACE_FILE

from .background.compositing import Matte
from .background.replacement import BackgroundReplacer
from .context import JobContext
from .errors import InvalidField, Unavailable
from .inference.protocol import ModelInfo
from .media import ffmpeg
from .media.image import NOT_AN_IMAGE, WHITE, LoadedImage, StillImage, load_layers
from .media.image_type import is_gif, is_image
from .media.probe import NOT_A_VIDEO, VideoFacts, read_facts
from .media.transform import FrameTransform
from .media.video import Video, open_video
from .request import AvatarRequest, UnknownBackground
from .resources.avatar_cache import (
    BackgroundCache,
    ByteCache,
    FaceBoxCache,
    StillValid,
    cache_key,
    file_digest,
    transform_key,
)
from .streams import both

TRANSPARENT_VIDEO = "background: Transparent applies to images; for a video, send background_video=true too"
_LAID_OVER = "its transparent parts are laid over the background color, or white"


@dataclass(frozen=True)
class Source:
    """The loaded avatar.

    Attributes:
        media: a still with its final background, or a video.
        alpha: the alpha channel UINT8 [H,W] of a still with a transparent background; otherwise None.
        replacer: replaces the background of each finished frame of a video; None if nothing is to be replaced.
        face_boxes: the cache of the boxes of its face.
        model_info: the models that process it.
        notes: what was done with an unusual file.
    """

    media: StillImage | Video
    alpha: Matte | None
    replacer: BackgroundReplacer | None
    face_boxes: FaceBoxCache
    model_info: ModelInfo
    notes: tuple[str, ...] = ()

    @property
    def has_alpha(self) -> bool:
        """Return whether the frames of the result have an alpha channel."""
        return self.alpha is not None or (self.replacer is not None and self.replacer.is_transparent)


async def load_source(request: AvatarRequest, job: JobContext) -> Source:
    """Load the request's image or video, and replace the background of an image. Raises as `pipeline.render`."""
    replacer = BackgroundReplacer(request, job)
    # of a still with a given box and its own background nothing is cached, and hashing files takes time
    is_cached = job.cache and not (request.is_still and job.options.box and not replacer.enabled)
    digest = await asyncio.to_thread(file_digest, request.face_path) if is_cached else ""
    known, media = await both(_look_up(digest, request, replacer, job), _open(digest, request, replacer, job))
    model_info, face_boxes, backgrounds = known
    replacer.served_as(model_info)
    if isinstance(media, Video):
        return _video_source(media, request, replacer, face_boxes, model_info)
    image, alpha = await replacer.replace_still(media, backgrounds)
    return Source(StillImage(image, job.options.fps), alpha, None, face_boxes, model_info, media.notes)


def _video_source(
    video: Video,
    request: AvatarRequest,
    replacer: BackgroundReplacer,
    face_boxes: FaceBoxCache,
    model_info: ModelInfo,
) -> Source:
    """Return the source of a video; its own alpha channel, if it has one, takes the place of segmentation."""
    options = request.options
    is_replaced = options.background_video and replacer.enabled
    notes = (TRANSPARENT_VIDEO,) if replacer.is_transparent and not is_replaced else ()
    if not video.has_alpha:
        return Source(video, None, replacer if is_replaced else None, face_boxes, model_info, notes)
    if is_replaced and replacer.color is None:
        replacer.use_alpha_of(video)
        return Source(video, None, replacer, face_boxes, model_info, notes)
    matted = replace(video, matte=replacer.color or WHITE)
    return Source(matted, None, None, face_boxes, model_info, (*notes, f"face_file: {_LAID_OVER}"))


async def _look_up(
    digest: str, request: AvatarRequest, replacer: BackgroundReplacer, job: JobContext
) -> tuple[ModelInfo, FaceBoxCache, BackgroundCache]:
    """Return how the models are served, and the cache entries of this avatar with them."""
    model_info = (await job.models.model_info(job.options.model)).chosen(request.id)
    return model_info, *await asyncio.to_thread(_cached, digest, request, replacer, model_info, job)


def _still_served(request: AvatarRequest, model_info: ModelInfo, job: JobContext) -> StillValid:
    """Return a check that the networks are still those of the keys: what others computed is not kept under them."""

    async def check() -> bool:
        try:
            now = (await job.models.model_info(job.options.model)).chosen(request.id)
        except Unavailable:
            return False
        return (now.detector, now.segmenter) == (model_info.detector, model_info.segmenter)

    return check


def _cached(
    digest: str, request: AvatarRequest, replacer: BackgroundReplacer, model_info: ModelInfo, job: JobContext
) -> tuple[FaceBoxCache, BackgroundCache]:
    """Return the cache entries of this avatar; without a cache, entries that store nothing. Reads the background."""
    options = job.options
    if not digest:
        return FaceBoxCache(), BackgroundCache()
    transform = transform_key(options)
    image = (digest, request.is_still, *transform, job.limits.max_work_pixels)
    background = (*replacer.cache_key(), model_info.segmenter) if replacer.enabled else ()
    detection = (options.face, options.detection, model_info.detector)
    valid = _still_served(request, model_info, job)
    return (
        FaceBoxCache(job.cache, cache_key(*image, *background, *detection), valid),
        BackgroundCache(job.cache, cache_key(*image, *background), valid),
    )


async def _open(
    digest: str, request: AvatarRequest, replacer: BackgroundReplacer, job: JobContext
) -> LoadedImage | Video:
    """Decode an image or probe a video; the content of the file decides which it is."""
    if await asyncio.to_thread(_is_still, request):
        if isinstance(request.background, UnknownBackground):
            raise InvalidField(BACKGROUND, request.background.reason)
        return await _load_still(request, replacer, job)
    try:
        return open_video(request.face_path, await _facts(digest, request, job), job.options, job.limits)
    except InvalidField as error:
        if request.is_still and error.reason == NOT_A_VIDEO:
            raise InvalidField(FACE_FILE, NOT_AN_IMAGE) from error
        raise


async def _facts(digest: str, request: AvatarRequest, job: JobContext) -> VideoFacts:
    """Return what is known of the request's video, from the cache or from ffmpeg."""
    key = cache_key("video", digest, job.limits, await asyncio.to_thread(ffmpeg.identity)) if digest else ""
    cached = ByteCache(job.cache, key)
    if (data := await cached.get()) is not None:
        try:
            return VideoFacts.from_json(data)
        except ValueError as error:
            await cached.discard(str(error))
    facts = await read_facts(request.face_path, job.limits)
    if facts.is_whole:  # of a file that is damaged, or was read at a bad moment, the next job asks again
        await cached.put(facts.to_json())
    return facts


def _is_still(request: AvatarRequest) -> bool:
    """Return whether the file is an image; a GIF is one only if the caller says so."""
    return is_image(request.face_path) and (request.is_still or not is_gif(request.face_path))


async def _load_still(request: AvatarRequest, replacer: BackgroundReplacer, job: JobContext) -> LoadedImage:
    with job.timer.stage("decode"):
        loaded = await asyncio.to_thread(load_layers, request.face_path, job.limits, replacer.color or WHITE)
    transform = FrameTransform(loaded.image.shape[1], loaded.image.shape[0], job.options)

    def one(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        changed: NDArray[np.uint8] = transform(pixels[None])[0]
        return changed

    return await asyncio.to_thread(loaded.map, one)
