"""The whole job: a picture or video and a recording in, an avatar that says it out."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from .background.replacement import with_alpha
from .context import JobContext, RequestLogger
from .errors import AvatarError, ClientError
from .events import Chunk, Event, Progress, RenderResult
from .faces import locator
from .generation import generator
from .generation.mel import MelWindows
from .inference.protocol import InferenceClient
from .media import audio, ffmpeg_args, video
from .media.encoder import Film
from .media.ffmpeg import FfmpegFailed
from .options import TrimMode
from .request import AvatarRequest
from .resources.cache import Cache
from .source import appear
from .streams import prefetch

RESULT_NAME = "avatar"  # in the request's folder, with the container's suffix
PREFETCHED_FRAMES = 2  # finished ones that wait for the encoder


async def render(request: AvatarRequest, models: InferenceClient, cache: Cache | None = None) -> AsyncGenerator[Event]:
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
    job = JobContext(models, RequestLogger(request.id), request.options, request.limits, cache=cache)
    try:
        async with aclosing(_render(request, job)) as events:
            async for event in events:
                yield event
    except AvatarError as error:
        tell(error, job)
        raise


async def _render(request: AvatarRequest, job: JobContext) -> AsyncGenerator[Event]:
    with audio.file_of_samples(request.folder) as decoded:
        with job.timer.stage("speech"):
            speech = await audio.hear(request.audio_path, decoded, job)
        async with aclosing(_speak(request, speech, job)) as events:
            async for event in events:
                yield event


async def _speak(request: AvatarRequest, speech: audio.Speech, job: JobContext) -> AsyncGenerator[Event]:
    seen = await appear(request, job)
    avatar, alpha, scenery, about = seen.avatar, seen.alpha, seen.scenery, seen.about
    if isinstance(avatar, video.Video) and job.options.trim is TrimMode.KEEP:
        speech = speech.lasting(avatar.count / avatar.fps)
    total = speech.frames(avatar.fps)
    job.limits.check_frame_count(total)
    yield Progress("speech", total, total)

    tracker = locator.Tracker(avatar, total, job, seen.faces)
    windows = MelWindows(speech, avatar.fps, job)
    spoken = generator.generate(generator.chunk_frames(tracker.frames(), windows), job)
    changes_video = isinstance(avatar, video.Video) and job.options.background_video and scenery.enabled
    if alpha is not None:
        spoken = with_alpha(spoken, alpha)
    elif changes_video:
        spoken = scenery.replace_frames(spoken)
    has_alpha = alpha is not None or (changes_video and scenery.is_transparent)
    frames = prefetch(spoken, PREFETCHED_FRAMES)
    comment = f"Made with stand-in checkpoints: {', '.join(about.stand_ins)}" if about.stand_ins else ""
    size = generator.to_even(avatar.width), generator.to_even(avatar.height)
    shape = ffmpeg_args.Picture(*size, avatar.fps, avatar.aspect, has_alpha)
    path = None if request.streamed else request.folder / f"{RESULT_NAME}.{shape.container}"
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
    seconds = job.timer.seconds
    job.log.info("%d frames; seconds: %s", film.frames, {stage: round(took, 3) for stage, took in seconds.items()})
    duration = float(speech.duration)
    without_face = tracker.without_face
    yield RenderResult(path, shape.container, film.frames, avatar.fps, duration, seconds, about.stand_ins, without_face)


def tell(error: AvatarError, job: JobContext) -> None:
    """Log what happened, and what the caller is not told: ffmpeg's words, a server's."""
    level = logging.INFO if isinstance(error, ClientError) else logging.ERROR
    job.log.log(level, "%s: %s", type(error).__name__, error)
    for cause in filter(None, (error, error.__cause__)):
        if isinstance(cause, FfmpegFailed):
            job.log.log(level, "ffmpeg ended with %d: %s", cause.exit_status, cause.words)
        elif cause is not error:
            job.log.log(level, "because of %s: %s", type(cause).__name__, cause)
