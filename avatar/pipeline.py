"""The whole job: a picture or video and a recording in, an avatar that says it out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from . import background, intake, pictures, sound, speaking, tracking, video
from .errors import AvatarError, ClientError
from .events import Progress, Rendered
from .ffmpeg import FfmpegFailed
from .film import Film
from .flow import ahead
from .job import Job, RequestLog
from .models import Floats, Models
from .request import AvatarRequest

RESULT = "avatar.mp4"  # in the request's folder
FRAMES_AHEAD = 2  # finished ones that wait for the encoder


async def render(request: AvatarRequest, models: Models) -> AsyncGenerator[Progress | Rendered]:
    """Do the job: progress while it runs, at the end the result.

    Close it (`contextlib.aclosing`) or cancel the task that iterates it, and the job stops: no process, task or
    half-made file is left.

    Raises:
        InvalidField: a file that cannot be worked on.
        FaceNotFound: a frame that is used shows no face.
        Unavailable: the models are down, not ready or too slow.
        AvatarError: a defect on our side; the log tells more.
    """
    job = Job(models, RequestLog(request.id))
    try:
        async with aclosing(_render(request, job)) as events:
            async for event in events:
                yield event
    except AvatarError as error:
        _log(error, job)
        raise


async def _render(request: AvatarRequest, job: Job) -> AsyncGenerator[Progress | Rendered]:
    speech = await _hear(request, job)
    avatar = await _look(request, job)
    total = speech.frames(avatar.fps)
    intake.refuse_many(total)
    windows = await _windows(speech, avatar, job)
    stand_ins = tuple(await job.models.stand_ins())
    yield Progress("speech", total, total)

    seen = tracking.track(avatar, total, job)
    shots = speaking.shots(seen, windows)
    frames = ahead(speaking.speak(shots, job), FRAMES_AHEAD)
    comment = f"Made with stand-in checkpoints: {', '.join(stand_ins)}" if stand_ins else ""
    size = (speaking.even(avatar.width), speaking.even(avatar.height))
    async with aclosing(frames), Film(request.folder / RESULT, size, avatar.fps, speech, job, comment) as film:
        async for frame in frames:
            await film.write(frame)
            yield Progress("encode", film.frames, total)
        await film.finish()
    seconds = job.clock.seconds
    job.log.info("%d frames; seconds: %s", film.frames, {stage: round(took, 3) for stage, took in seconds.items()})
    yield Rendered(film.path, film.frames, avatar.fps, float(speech.duration), seconds, stand_ins)


async def _hear(request: AvatarRequest, job: Job) -> sound.Speech:
    with job.clock.stage("speech"):
        return await sound.hear(request.speech)


async def _look(request: AvatarRequest, job: Job) -> pictures.Still | video.Video:
    if not request.still:
        return await video.look(request.face)
    with job.clock.stage("decode"):
        picture = await asyncio.to_thread(pictures.read, request.face)
    if colour := request.background.rgb:
        with job.clock.stage("background"):
            picture = await background.change(picture, colour, request.folder, job.models)
    return pictures.Still(picture)


async def _windows(speech: sound.Speech, avatar: pictures.Still | video.Video, job: Job) -> Floats:
    with job.clock.stage("speech"):
        return await job.models.mel_windows(speech.samples, float(avatar.fps))


def _log(error: AvatarError, job: Job) -> None:
    """What happened, and what the caller is not told: ffmpeg's words, a server's."""
    level = logging.INFO if isinstance(error, ClientError) else logging.ERROR
    job.log.log(level, "%s: %s", type(error).__name__, error)
    for cause in filter(None, (error, error.__cause__)):
        if isinstance(cause, FfmpegFailed):
            job.log.log(level, "ffmpeg ended with %d: %s", cause.exit_status, cause.words)
        elif cause is not error:
            job.log.log(level, "because of %s: %s", type(cause).__name__, cause)
