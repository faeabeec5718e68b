"""Play the frames of a session in real time: one slot per frame, and its sound with it. Knows nothing of WebRTC."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass
from fractions import Fraction

from avatar.inference.live_stream import LiveFrame

MAX_SECONDS = 10.0  # of frames that wait; then the model is not read
SPARE = 2  # frames at rest beyond the delay that may wait before some are left out
UNTAKEN_SECONDS = 2.0  # of sound that wait for a track that is not connected yet, or never is
SAMPLE_BYTES = 2


@dataclass(frozen=True)
class Slot:
    """What is shown from `number` / fps on."""

    number: int
    jpeg: bytes


class Player:
    """The timeline of one caller: a slot begins every 1 / fps seconds, whether a frame has come or not.

    A slot without a frame shows the one before, in silence. The frames of the face at rest come in real time, those of
    speech `latency` later. So the player starts with that delay, and has no gap where speech begins.

    Attributes:
        shown: index of the last frame that was played; -1 for none.
        sound_at: sample of the timeline at which the next sound begins.
    """

    def __init__(self, fps: Fraction, latency: float, sample_rate: int) -> None:
        self._fps, self._latency, self._sample_rate = fps, latency, sample_rate
        self._delay = math.ceil(latency * fps)
        self._frames: deque[LiveFrame] = deque()
        self._sound = bytearray()
        self._slot: Slot | None = None
        self._samples = 0  # of all slots
        self._is_closed = False
        self._changed = asyncio.Condition()
        self.shown = -1
        self.sound_at = 0

    async def put(self, frame: LiveFrame) -> None:
        """Add the next frame; wait while too many wait already."""
        most = int(MAX_SECONDS * self._fps)
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._frames) < most or self._is_closed)
            self._frames.append(frame)
            self._changed.notify_all()

    async def clear(self) -> None:
        """Drop the frames that were not played."""
        async with self._changed:
            self._frames.clear()
            self._changed.notify_all()

    async def run(self) -> None:
        """Begin slots, from a little after the first frame on, until the end of the task."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._frames))
        loop = asyncio.get_running_loop()
        start, number = loop.time() + self._latency, 0
        while True:
            await asyncio.sleep(start + float(number / self._fps) - loop.time())
            await self.begin_slot(number)
            number += 1

    async def begin_slot(self, number: int) -> None:
        """Play the next frame, if one has come."""
        async with self._changed:
            self._catch_up()
            frame = self._frames.popleft() if self._frames else None
            samples = int((number + 1) * self._sample_rate / self._fps) - self._samples
            self._samples += samples
            size = samples * SAMPLE_BYTES
            if frame:
                self.shown = frame.index
            self._sound += (frame.sound if frame else b"")[:size].ljust(size, b"\0")
            self._drop_sound(len(self._sound) - int(UNTAKEN_SECONDS * self._sample_rate) * SAMPLE_BYTES)
            jpeg = frame.jpeg if frame else self._slot.jpeg if self._slot else b""
            self._slot = Slot(number, jpeg)
            self._changed.notify_all()

    async def wait_until_played(self) -> None:
        """Return when no frame waits."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._frames or self._is_closed)

    async def next_slot(self, after: int) -> Slot | None:
        """Return the newest slot with a number over `after`; None at the end."""

        def is_there() -> bool:
            return self._is_closed or (self._slot is not None and self._slot.number > after)

        async with self._changed:
            await self._changed.wait_for(is_there)
            return None if self._is_closed else self._slot

    async def next_sound(self, samples: int) -> bytes | None:
        """Return the next samples, INT16; None at the end."""
        size = samples * SAMPLE_BYTES
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_closed or len(self._sound) >= size)
            if self._is_closed:
                return None
            sound = bytes(self._sound[:size])
            self._drop_sound(size)
            return sound

    async def close(self) -> None:
        """End the tracks."""
        async with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _drop_sound(self, size: int) -> None:
        """Remove this many bytes at the front, if the number is positive."""
        if size > 0:
            del self._sound[:size]
            self.sound_at += size // SAMPLE_BYTES

    def _catch_up(self) -> None:
        """Leave out frames at rest where more wait than the delay needs: slots without a frame have made them late."""
        while len(self._frames) > self._delay + SPARE and all(self._frames[n].sound_time < 0 for n in (0, 1)):
            self._frames.popleft()
