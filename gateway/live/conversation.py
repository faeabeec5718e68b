"""One live session as the gateway runs it, whatever carries it: speech in, frames and marks in order out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from avatar.inference.live_stream import NO_PCM, LiveEvent, LiveFrame, LiveSource, Value
from avatar.streams import cancel_and_wait
from lipsync.arrays import Array
from lipsync.tensors import CLEAR, REST, SEGMENT_END

from .order import FrameOrder
from .speech import SpeechBuffer

PAUSE_SECONDS = 1.0  # without speech: then the face rests, although the caller has not ended the segment
RECEIVED_SECONDS = 2.0  # between two requests that only say which frames were passed on: they keep the session, too
FOREVER = -1  # frames of the face at rest until the next request


class Conversation:
    """A started session. For one event loop.

    Args:
        source: the session at the model.
        sample_rate: of the speech.
        rest: whether the face is shown at rest while there is no speech.

    Attributes:
        info: the JSON of `session`.
    """

    def __init__(self, source: LiveSource, sample_rate: int, *, rest: bool) -> None:
        self.info = source.info
        self._source, self._rest = source, rest
        self._speech = SpeechBuffer(sample_rate)
        self._order = FrameOrder()
        self._passed = -1  # index of the last frame that was passed on
        self._is_speaking = False
        self._pause: asyncio.TimerHandle | None = None
        self._acknowledging = asyncio.create_task(self._acknowledge())

    def speak(self, pcm: bytes) -> None:
        """Send the next speech, INT16 little endian. Raises InvalidField."""
        if not pcm:
            return
        for piece in self._speech.add(pcm):
            self._send(pcm=piece)
        self._is_speaking = True
        self._stop_pause()
        if self._rest:
            self._pause = asyncio.get_running_loop().call_later(PAUSE_SECONDS, self.end_segment)

    def end_segment(self) -> None:
        """End the part of the speech that was sent since the last end; does nothing without speech."""
        self._stop_pause()
        if self._is_speaking:
            self._is_speaking = False
            rest = self._speech.take()
            self._send(**({"pcm": rest} if rest.size else {}), **{SEGMENT_END: _int(1)}, **self._resting())

    def clear(self, shown: int | None = None) -> None:
        """Drop what was not shown yet; `cleared` is among the events."""
        self._stop_pause()
        self._is_speaking = False
        self._speech.drop()
        self._order.clear()
        self._send(**{CLEAR: _int(-1 if shown is None else shown)}, **self._resting())

    def end(self) -> None:
        """End the session: what is left comes, then `summary`, then the end of the events."""
        self._stop_pause()
        self._acknowledging.cancel()
        rest = self._speech.take()
        self._source.send({"pcm": rest if rest.size else NO_PCM}, received=self._passed, end=True)

    async def events(self) -> AsyncIterator[LiveEvent]:
        """Yield frames and marks in order, until the end. Raises AvatarError."""
        while (event := await self._source.read()) is not None:
            for ready in self._order.add(event):
                if isinstance(ready, LiveFrame):
                    self._passed = ready.index
                    self._speech.advance(ready.sound_time)
                yield ready

    async def close(self) -> None:
        """End the session, if it has not ended."""
        self._stop_pause()
        await cancel_and_wait(self._acknowledging)
        await self._source.close()

    def _send(self, **inputs: Value) -> None:
        self._source.send(inputs, received=self._passed)

    async def _acknowledge(self) -> None:
        while True:
            await asyncio.sleep(RECEIVED_SECONDS)
            self._send()

    def _resting(self) -> dict[str, Array]:
        return {REST: _int(FOREVER)} if self._rest else {}

    def _stop_pause(self) -> None:
        if self._pause:
            self._pause.cancel()
            self._pause = None


def first_inputs(sample_rate: int, *, rest: bool) -> dict[str, Value]:
    """Return the inputs of a session's first request that do not concern its face."""
    inputs: dict[str, Any] = {"format": "jpeg", "sample_rate": _int(sample_rate), "echo": "true"}
    return inputs | ({REST: _int(FOREVER)} if rest else {})


def _int(value: int) -> Array:
    return np.array([value], np.int32)
