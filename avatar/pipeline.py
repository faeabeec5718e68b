"""The whole job: a picture or video and a recording in, an avatar that says it out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np
from numpy.typing import NDArray

from lipsync.tensors import FACE_FILE

from . import media, memory, pictures, sound, speaking, tracking, video
from .cache import Cache
from .errors import AvatarError, ClientError, InvalidField
from .events import Chunk, Event, Progress, Rendered
from .ffmpeg import FfmpegFailed
from .film import Film
from .flow import ahead
from .framing import Framing
from .job import Job, RequestLog
from .models import About, Models
from .options import Shorter
from .request import AvatarRequest
from .scenery import Scenery, with_alpha

Alpha = NDArray[np.uint8] | None  # [H,W]

RESULT = "avatar"  # in the request's folder, with the container's suffix
FRAMES_AHEAD = 2  # finished ones that wait for the encoder


async def render(request: AvatarRequest, models: Models, cache: Cache | None = None) -> AsyncGenerator[Event]:
    """Do the job: progress while it runs, of a streamed result its chunks, at the end the result.

    What is found out about an avatar is remembered in `cache`, where there is one, for the next job with it.

    Close it (`contextlib.aclosing`) or cancel the task that iterates it, and the job stops: no process, task or
    half-made file is left.

    Raises:
        InvalidField: a file that cannot be worked on.
        FaceNotFound: a frame that is used shows no face.
        Unavailable: the models are down, not ready or too slow.
        AvatarError: a defect on our side; the log tells more.
    """
    job = Job(models, RequestLog(request.id), request.options, request.limits, cache=cache)
    try:
        async with aclosing(_render(request, job)) as events:
            async for event in events:
                yield event
    except AvatarError as error:
        _log(error, job)
        raise


async def _render(request: AvatarRequest, job: Job) -> AsyncGenerator[Event]:
    with sound.file_of_samples(request.folder) as decoded:
        with job.clock.stage("speech"):
            speech = await sound.hear(request.speech, decoded, job)
        async with aclosing(_speak(request, speech, job)) as events:
            async for event in events:
                yield event


async def _speak(request: AvatarRequest, speech: sound.Speech, job: Job) -> AsyncGenerator[Event]:
    scenery = Scenery(request, job)
    about = await job.models.about(job.options.model)
    faces, looks = await asyncio.to_thread(_remembered, request, scenery, about, job)
    avatar, alpha = await _look(request, scenery, looks, job)
    if isinstance(avatar, video.Video) and job.options.shorter is Shorter.KEEP:
        speech = speech.lasting(avatar.count / avatar.fps)
    total = speech.frames(avatar.fps)
    job.limits.refuse_many(total)
    yield Progress("speech", total, total)

    tracker = tracking.Tracker(avatar, total, job, faces)
    windows = sound.Windows(speech, avatar.fps, job)
    spoken = speaking.speak(speaking.shots(tracker.frames(), windows), job)
    changes_video = isinstance(avatar, video.Video) and job.options.background_video and scenery.is_changed
    if alpha is not None:
        spoken = with_alpha(spoken, alpha)
    elif changes_video:
        spoken = scenery.behind_frames(spoken)
    has_alpha = alpha is not None or (changes_video and scenery.is_transparent)
    frames = ahead(spoken, FRAMES_AHEAD)
    comment = f"Made with stand-in checkpoints: {', '.join(about.stand_ins)}" if about.stand_ins else ""
    size = speaking.even(avatar.width), speaking.even(avatar.height)
    shape = media.Picture(*size, avatar.fps, avatar.aspect, has_alpha)
    path = None if request.streamed else request.folder / f"{RESULT}.{shape.container}"
    async with (
        aclosing(windows),
        aclosing(frames),
        Film(path, shape, speech, job, comment) as film,
    ):
        async for frame in frames:
            await film.write(frame)
            yield Progress("encode", film.frames, total)
            for piece in film.pieces():
                yield Chunk(piece)
        await film.finish()
        for piece in film.pieces():
            yield Chunk(piece)
    seconds = job.clock.seconds
    job.log.info("%d frames; seconds: %s", film.frames, {stage: round(took, 3) for stage, took in seconds.items()})
    duration = float(speech.duration)
    without_face = tracker.without_face
    yield Rendered(path, shape.container, film.frames, avatar.fps, duration, seconds, about.stand_ins, without_face)


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


def _log(error: AvatarError, job: Job) -> None:
    """What happened, and what the caller is not told: ffmpeg's words, a server's."""
    level = logging.INFO if isinstance(error, ClientError) else logging.ERROR
    job.log.log(level, "%s: %s", type(error).__name__, error)
    for cause in filter(None, (error, error.__cause__)):
        if isinstance(cause, FfmpegFailed):
            job.log.log(level, "ffmpeg ended with %d: %s", cause.exit_status, cause.words)
        elif cause is not error:
            job.log.log(level, "because of %s: %s", type(cause).__name__, cause)
