"""A bot of Pipecat with a face, and a sink in place of a call. Import it in fixtures only: that takes long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from loguru import logger
from numpy.typing import NDArray
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    InterruptionFrame,
    OutputImageRawFrame,
    OutputTransportReadyFrame,
    StartFrame,
    TextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSUpdateSettingsFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.utils.errors import ErrorCategory
from pipecat.workers.runner import WorkerRunner

from avatar_pipecat import AvatarVideoService
from tests.integrations.speech import RATE, Pcm

__all__ = [
    "UPSTREAM",
    "AvatarVideoService",
    "BotStartedSpeakingFrame",
    "EndFrame",
    "ErrorCategory",
    "InterruptionFrame",
    "TTSUpdateSettingsFrame",
    "TextFrame",
    "TranscriptionFrame",
    "bot",
]

SECONDS = 60.0  # generous, for what takes a second
UPSTREAM = FrameDirection.UPSTREAM
logger.disable("pipecat")
KINDS = {
    OutputImageRawFrame: "v",
    TTSAudioRawFrame: "a",
    TTSStartedFrame: "(",
    TTSStoppedFrame: ")",
    TextFrame: "t",
    InterruptionFrame: "!",
    EndFrame: "E",
}


class Sink(FrameProcessor):
    """Keeps what reaches it, and says that it is ready, as the output of a transport does."""

    def __init__(self, changed: asyncio.Event) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.changed = changed

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.frames.append(frame)
        self.changed.set()
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame):
            await self.push_frame(OutputTransportReadyFrame(), FrameDirection.UPSTREAM)


class Source(FrameProcessor):
    """Keeps what comes back upstream."""

    def __init__(self, changed: asyncio.Event) -> None:
        super().__init__()
        self.upstream: list[Frame] = []
        self.changed = changed

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if direction is FrameDirection.UPSTREAM:
            self.upstream.append(frame)
            self.changed.set()
        await self.push_frame(frame, direction)

    @property
    def errors(self) -> list[ErrorFrame]:
        return [each for each in self.upstream if isinstance(each, ErrorFrame)]


class Bot:
    """A pipeline of a source, the service and a sink."""

    def __init__(self, service: AvatarVideoService) -> None:
        changed = asyncio.Event()
        self.service, self.source, self.sink = service, Source(changed), Sink(changed)
        self.worker = PipelineWorker(
            Pipeline([self.source, service, self.sink]),
            params=PipelineParams(audio_out_sample_rate=RATE),
            enable_rtvi=False,
            cancel_on_idle_timeout=False,
        )

    @property
    def frames(self) -> list[Frame]:
        return self.sink.frames

    async def push(self, *frames: Frame) -> None:
        for frame in frames:
            await self.worker.queue_frame(frame)

    async def say(self, samples: NDArray[np.int16], rate: int = RATE, context: str | None = None) -> None:
        """Push speech [n] or [n, channels] as a text-to-speech service does, 20 ms at a time."""
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        await self.push(TTSStartedFrame(context_id=context))
        for part in np.array_split(samples, -(-len(samples) * 50 // rate)):
            await self.push(TTSAudioRawFrame(part.tobytes(), rate, channels, context_id=context))
        await self.push(TTSStoppedFrame(context_id=context))

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for something among the frames of the sink or the source."""
        async with asyncio.timeout(SECONDS):
            while not condition():
                self.sink.changed.clear()
                await self.sink.changed.wait()

    async def until_said(self, count: int = 1) -> None:
        await self.until(lambda: self.kinds().count(")") >= count)

    def kinds(self, since: int = 0) -> str:
        """Return one letter for each frame of the sink, see KINDS."""
        return "".join(KINDS.get(type(frame), "") for frame in self.frames[since:])

    def images(self, since: int = 0) -> list[NDArray[np.uint8]]:
        return [
            np.frombuffer(frame.image, np.uint8).reshape(*frame.size[::-1], 3)
            for frame in self.frames[since:]
            if isinstance(frame, OutputImageRawFrame)
        ]

    def sound(self, since: int = 0) -> Pcm:
        sounds = [frame for frame in self.frames[since:] if isinstance(frame, TTSAudioRawFrame)]
        return np.concatenate([np.zeros(0, np.int16), *(np.frombuffer(each.audio, np.int16) for each in sounds)])

    def contexts(self) -> list[str | None]:
        """Return the context of each frame of sound, without repetitions."""
        contexts = [frame.context_id for frame in self.frames if isinstance(frame, TTSAudioRawFrame)]
        return list(dict.fromkeys(contexts))


@asynccontextmanager
async def bot(server: str, face: bytes, *, is_ready: bool = True, **options: Any) -> AsyncIterator[Bot]:
    """Run a bot with a face, and wait for its first image."""
    running = Bot(AvatarVideoService(server=server, face=face, **options))
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(running.worker)
    task = asyncio.create_task(runner.run())
    try:
        if is_ready:  # sessions of earlier tests may still have all places: then the service tries again
            await running.until(lambda: running.images())
        yield running
    finally:
        await running.worker.queue_frame(CancelFrame())
        async with asyncio.timeout(SECONDS):
            await task
