"""The whole job: an image or video and audio in, a video of the avatar that says the audio out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass

from .background.replacement import replace_background
from .context import JobContext
from .events import Chunk, Event, Progress, RenderResult
from .faces.locator import LocatedFrame, locate_faces
from .generation.finishing import to_even
from .generation.generator import lip_sync
from .generation.mel import MelWindows
from .inference.protocol import InferenceClient
from .load import LOAD, MemoryBudget, job_memory, wait_for
from .media.audio import Speech, decode_audio, pcm_file
from .media.encoder import VideoEncoder
from .media.ffmpeg_args import VideoFormat
from .media.image import StillImage
from .media.marking import METADATA, Mark, Marker
from .media.video import Video
from .options import TrimMode
from .request import AvatarRequest
from .resources.cache import Cache
from .source import Source, load_source
from .streams import both, prefetch_ready

RESULT_NAME = "avatar"  # in the request's folder, with the suffix of the container
PREFETCHED_FRAMES = 4  # finished frames that wait for the encoder
WAIT_SECONDS = 5.0  # between two events that say that the job waits for memory


async def render(
    request: AvatarRequest,
    models: InferenceClient,
    cache: Cache | None = None,
    memory: MemoryBudget | None = None,
    marker: Marker = METADATA,
) -> AsyncGenerator[Event]:
    """Do the job: yield progress, the chunks of a streamed result, and at the end the result.

    `cache`, if there is one, stores what was computed for an avatar for later jobs with the same avatar. `memory`, if
    it is given, is shared with other jobs: the job waits for its part. `marker` marks the result as synthetic.

    To stop the job, close the generator (`contextlib.aclosing`) or cancel the task that iterates over it: no process,
    task or unfinished file is left.

    Raises:
        InvalidField: a file cannot be processed.
        FaceNotFound: a frame that is used shows no face.
        Unavailable: the models are down, not ready or too slow.
        AvatarError: a defect of this service; the log has the details.
    """
    job = JobContext.of(request, models, cache)
    with job.failure_logged(), pcm_file(request.folder) as pcm_path, ExitStack() as held:
        decoding = decode_audio(request.audio_path, pcm_path, job.limits, job.timer)
        speech, source = await both(decoding, load_source(request, job))
        job = job.served_as(source.model_info)
        if source.model_info.versions:
            job.log.info("this job tries versions of %s", dict(source.model_info.versions))
        clip = Clip.plan(source, speech, job)
        mark = marker.mark(clip.format.container, clip.stand_ins, streamed=request.streamed)
        yield Progress("speech", clip.frame_count, clip.frame_count)
        if memory:
            turn = held.enter_context(memory.reserve(clip.memory))
            while not turn.is_set():
                with job.timer.stage("memory"):
                    await wait_for(turn, WAIT_SECONDS)
                yield Progress("memory", 0)
        held.enter_context(LOAD.job())

        missing = MissingFaces()
        windows = MelWindows(clip.speech, clip.format.fps, job)
        located = missing.counted(locate_faces(source.media, clip.frame_count, job, source.face_boxes))
        frames = lip_sync(located, windows, job, keep_bgr=source.replacer is not None)
        frames = replace_background(frames, source.replacer, source.alpha, clip.frame_count)
        finished = prefetch_ready(frames, PREFETCHED_FRAMES)
        async with aclosing(windows), aclosing(finished), open_encoder(clip, request, job, mark) as encoder:
            windows.start()
            async for ready in finished:
                await encoder.write(*ready)
                count = len(ready)
                del ready  # or its frames stay in memory while the next ones are finished
                for done in range(encoder.frame_count - count, encoder.frame_count):
                    yield Progress("encode", done + 1, clip.frame_count)
                for data in await encoder.ready_chunks():
                    yield Chunk(data)
            await encoder.finish()
            async with aclosing(encoder.last_chunks()) as chunks:
                async for data in chunks:
                    yield Chunk(data)
        yield clip.result(source.media, encoder, missing.count, job)


@dataclass(frozen=True)
class Clip:
    """What the result will be.

    Attributes:
        frame_count: number of frames, `ceil(duration · fps)`.
        format: of the video track.
        speech: the audio, followed by silence if the video is shown to its end.
        memory: bytes that its frames and its ffmpegs take, about.
        stand_ins: names of the models that run on stand-in checkpoints.
        notes: what was done with unusual files.
    """

    frame_count: int
    format: VideoFormat
    speech: Speech
    memory: int
    stand_ins: tuple[str, ...]
    notes: tuple[str, ...]

    @classmethod
    def plan(cls, source: Source, speech: Speech, job: JobContext) -> Clip:
        """Plan the result. Raises InvalidField if it would have too many frames."""
        media = source.media
        if isinstance(media, Video) and job.options.trim is TrimMode.KEEP:
            speech = speech.padded_to(media.frame_count / media.fps)
        frame_count = speech.frame_count(media.fps)
        job.limits.check_frame_count(frame_count)
        size = to_even(media.width), to_even(media.height)
        video = VideoFormat(*size, media.fps, media.aspect, source.has_alpha)
        memory = job_memory(media.width * media.height, is_video=isinstance(media, Video))
        notes = (*source.notes, *speech.notes)
        return cls(frame_count, video, speech, memory, source.model_info.stand_ins, notes)

    def result(
        self, media: StillImage | Video, encoder: VideoEncoder, without_face: int, job: JobContext
    ) -> RenderResult:
        """Return the finished job, and log how long its stages took."""
        seconds = job.timer.seconds
        rounded = {stage: round(took, 3) for stage, took in seconds.items()}
        job.log.info("rendered %d frames; seconds per stage: %s", encoder.frame_count, rounded)
        return RenderResult(
            path=encoder.path,
            container=self.format.container,
            frames=encoder.frame_count,
            fps=self.format.fps,
            duration=float(self.speech.duration),
            seconds=seconds,
            stand_ins=self.stand_ins,
            without_face=without_face,
            notes=(*self.notes, *encoder.notes),
            encoder=encoder.codec.value,
            decoder=media.decoded_by if isinstance(media, Video) else "",
        )


def open_encoder(clip: Clip, request: AvatarRequest, job: JobContext, mark: Mark) -> VideoEncoder:
    """Return the encoder of the clip, to be used with `async with`; it keeps no file if the result is streamed."""
    path = request.folder / f"{RESULT_NAME}.{clip.format.container}"
    audio = clip.speech.track(job.limits.max_pixels)
    quality = job.options.quality
    if not request.streamed:
        return VideoEncoder(path, clip.format, audio, quality, job.timer, mark)
    return VideoEncoder(None, clip.format, audio, quality, job.timer, mark, spool=path if mark.signer else None)


class MissingFaces:
    """Counts the frames in which no face was found, as they pass."""

    def __init__(self) -> None:
        self.count = 0

    async def counted(self, frames: AsyncGenerator[LocatedFrame]) -> AsyncGenerator[LocatedFrame]:
        """Yield the same frames and count those without a face."""
        async with aclosing(frames):
            async for frame in frames:
                self.count += not frame.found
                yield frame
