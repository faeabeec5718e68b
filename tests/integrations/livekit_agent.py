"""An agent of LiveKit with a face, without a room. Import it in fixtures only: LiveKit takes seconds to import."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from livekit import rtc
from livekit.agents.voice.avatar import AudioSegmentEnd
from numpy.typing import NDArray

from avatar_client import Unavailable
from avatar_livekit import AvatarVideoGenerator
from tests.integrations.speech import RATE, Pcm

SECONDS = 60.0  # generous, for what takes less than a second


class Agent:
    """Pushes speech into a generator, and takes what comes out."""

    def __init__(self, generator: AvatarVideoGenerator) -> None:
        self.generator = generator
        self.lost: list[Exception] = []
        self.back = asyncio.Event()
        generator.on("server_lost", self.lost.append)
        generator.on("server_back", self.back.set)
        self._output = aiter(generator)

    async def say(self, samples: NDArray[np.int16], rate: int = RATE) -> None:
        """Push samples [n] or [n, channels], 20 ms at a time."""
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        for part in np.array_split(samples, -(-len(samples) * 50 // rate)):
            await self.generator.push_audio(rtc.AudioFrame(part.tobytes(), rate, channels, len(part)))

    async def end(self) -> None:
        await self.generator.push_audio(AudioSegmentEnd())

    async def take(self, count: int) -> Shown:
        """Take frames until `count` images have come."""
        shown = Shown()
        async with asyncio.timeout(SECONDS):
            while len(shown.images) < count:
                shown.add(await anext(self._output))
        return shown

    async def take_until(self, kinds: str) -> Shown:
        """Take frames until the last ones are of these kinds."""
        shown = Shown()
        async with asyncio.timeout(SECONDS):
            while not shown.kinds.endswith(kinds):
                shown.add(await anext(self._output))
        return shown

    async def take_segment(self) -> Shown:
        """Take frames until the end of a segment."""
        return await self.take_until("e")

    async def take_all(self) -> Shown:
        """Take frames until the iteration ends."""
        shown = Shown()
        async with asyncio.timeout(SECONDS):
            async for frame in self._output:
                shown.add(frame)
        return shown


class Shown:
    """What a viewer got, in order: `kinds` has v for an image, a for sound, and e for the end of a segment."""

    def __init__(self) -> None:
        self.images: list[NDArray[np.uint8]] = []
        self.sounds: list[Pcm] = []
        self.kinds = ""
        self._start = time.monotonic()

    @property
    def sound(self) -> Pcm:
        return np.concatenate([np.zeros(0, np.int16), *self.sounds])

    @property
    def fps(self) -> float:
        return len(self.images) / (time.monotonic() - self._start)

    def add(self, frame: object) -> None:
        if isinstance(frame, rtc.VideoFrame):
            assert frame.type == rtc.VideoBufferType.RGB24
            self.images.append(np.frombuffer(frame.data, np.uint8).reshape(frame.height, frame.width, 3))
            self.kinds += "v"
        elif isinstance(frame, rtc.AudioFrame):
            assert (frame.sample_rate, frame.num_channels) == (RATE, 1)
            self.sounds.append(np.frombuffer(frame.data, np.int16))
            self.kinds += "a"
        else:
            assert isinstance(frame, AudioSegmentEnd)
            self.kinds += "e"


async def start(server: str, face: bytes, **options: Any) -> AvatarVideoGenerator:
    """Start a generator; where the sessions of earlier tests still have all places, wait for one."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                return await AvatarVideoGenerator.start(server, face, **options)
            except Unavailable as error:
                if "limit of" not in error.message:
                    raise
            await asyncio.sleep(0.2)


@asynccontextmanager
async def agent(server: str, face: bytes) -> AsyncIterator[Agent]:
    """Run an agent with a face."""
    generator = await start(server, face, sample_rate=RATE)
    try:
        yield Agent(generator)
    finally:
        await generator.aclose()
