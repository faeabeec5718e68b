"""The tracks of a session: the face and its sound, out of a `Player`; a microphone's samples in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from fractions import Fraction

import cv2
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame, AudioResampler, VideoFrame

from .gate import SAMPLE_RATE, Samples
from .player import Player

VIDEO_CLOCK = 90_000  # of RTP
SOUND_SAMPLES = SAMPLE_RATE // 50  # of one packet, 20 ms


class FaceTrack(MediaStreamTrack):
    """The face. Where the encoder is slower than the frames come, some are left out."""

    kind = "video"

    def __init__(self, player: Player, fps: Fraction) -> None:
        super().__init__()
        self._player, self._fps = player, fps
        self._number = -1
        self._jpeg, self._image = b"", np.zeros((2, 2, 3), np.uint8)

    async def recv(self) -> VideoFrame:
        """Return the next frame, when its slot begins. Raises MediaStreamError at the end."""
        slot = await self._player.next_slot(self._number)
        if slot is None:
            raise MediaStreamError
        self._number = slot.number
        if slot.jpeg != self._jpeg:
            self._jpeg, self._image = slot.jpeg, await asyncio.to_thread(_decode, slot.jpeg)
        frame = VideoFrame.from_ndarray(self._image, format="bgr24")
        frame.pts, frame.time_base = int(slot.number * VIDEO_CLOCK / self._fps), Fraction(1, VIDEO_CLOCK)
        return frame


class SoundTrack(MediaStreamTrack):
    """The sound of the frames, on the same timeline."""

    kind = "audio"

    def __init__(self, player: Player) -> None:
        super().__init__()
        self._player = player

    async def recv(self) -> AudioFrame:
        """Return the next 20 ms. Raises MediaStreamError at the end."""
        sound = await self._player.next_sound(SOUND_SAMPLES)
        if sound is None:
            raise MediaStreamError
        start = self._player.sound_at - SOUND_SAMPLES
        frame = AudioFrame(format="s16", layout="mono", samples=SOUND_SAMPLES)
        frame.planes[0].update(sound)
        frame.sample_rate, frame.time_base, frame.pts = SAMPLE_RATE, Fraction(1, SAMPLE_RATE), start
        return frame


async def samples_of(track: MediaStreamTrack) -> AsyncIterator[Samples]:
    """Yield what a caller's track contains, as mono at SAMPLE_RATE, until it ends."""
    resampler = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    while True:
        try:
            received = await track.recv()
        except MediaStreamError:
            return
        if isinstance(received, AudioFrame):
            for frame in resampler.resample(received):
                yield frame.to_ndarray().reshape(-1).astype(np.int16)


def _decode(jpeg: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) if jpeg else None
    if image is None:
        return np.zeros((2, 2, 3), np.uint8)
    height, width = image.shape[:2]
    return np.ascontiguousarray(image[: height // 2 * 2, : width // 2 * 2], np.uint8)  # encoders halve the colors
