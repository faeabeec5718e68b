"""The requests of a live session: what they ask for, and the queue in which they wait."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from lipsync.arrays import Array
from lipsync.mel import SAMPLE_RATE
from lipsync.tensors import (
    CLEAR,
    ECHO,
    LIVE_SAMPLE_RATE,
    LIVE_SAMPLE_RATES,
    NEW_SEQUENCE,
    RECEIVED,
    REST,
    SEGMENT_END,
)

from ..errors import InvalidField
from ..form.values import echo as quoted
from .live_avatar import FORMATS
from .live_speech import INPUTS, read_speech
from .request import StreamRequest

UNTIL_NEXT_REQUEST = -1  # a value of `rest`
_WORDS = {"true": True, "false": False, "": False}


@dataclass(frozen=True)
class SessionSettings:
    """What the first request says about a session, besides its avatar.

    Attributes:
        rate: of the speech, in Hz.
        echo: whether each frame comes with its sound.
        frame_format: one of `FORMATS`.
    """

    rate: int = SAMPLE_RATE
    echo: bool = False
    frame_format: str = FORMATS[0]

    @classmethod
    def of(cls, request: StreamRequest) -> SessionSettings:
        """Read them. Raises InvalidField."""
        rate = _number(request, LIVE_SAMPLE_RATE, SAMPLE_RATE)
        lowest, highest = LIVE_SAMPLE_RATES
        if not lowest <= rate <= highest:
            raise InvalidField(LIVE_SAMPLE_RATE, f"{lowest} to {highest} Hz expected, got {rate}")
        echo = request.texts().get(ECHO, "").strip().lower()
        if echo not in _WORDS:
            raise InvalidField(ECHO, f"true or false expected, got {quoted(echo)}")
        takes_sequence(request)
        return cls(rate, _WORDS[echo], _format(request))


def takes_sequence(request: StreamRequest) -> bool:
    """Return whether a first request asks for a sequence id of the server. Raises InvalidField."""
    return _flag(request, NEW_SEQUENCE)


@dataclass(frozen=True)
class Controls:
    """What a request asks for besides its speech.

    Attributes:
        clear: index of the last frame that was shown, or -1; None where nothing is to be dropped.
        ends_segment: whether it asks for the end of the segment by `segment_end`.
        rest: number of frames at rest, or `UNTIL_NEXT_REQUEST`.
    """

    clear: int | None = None
    ends_segment: bool = False
    rest: int = 0

    @classmethod
    def of(cls, request: StreamRequest) -> Controls:
        """Read them. Raises InvalidField."""
        rest = _number(request, REST, 0)
        if rest < UNTIL_NEXT_REQUEST or (rest == 0 and REST in request.inputs):
            raise InvalidField(
                REST, f"a number of frames, or -1 for frames until the next request, expected, got {rest}"
            )
        if rest == UNTIL_NEXT_REQUEST and request.is_end:
            raise InvalidField(REST, "no request follows the last one; send a number of frames with it")
        clear = _number(request, CLEAR, -1)
        if clear < -1:
            raise InvalidField(CLEAR, f"the index of a frame that was sent, or -1, expected, got {clear}")
        return cls(clear if CLEAR in request.inputs else None, _flag(request, SEGMENT_END), rest)


class PendingRequest:
    """A request in its session's queue; its caller waits until it is completed.

    Attributes:
        request: its inputs are read and released.
        arrived: when it arrived, by `time.monotonic`.
        controls: what it asks for.
        speech: as it was sent, FP32 or INT16 [n]; None where it has none.
        error: why it is rejected when its turn comes.
        skipped: samples of speech that it has dropped from the requests before it, if it clears.
        is_received: whether its speech is part of the timeline.
    """

    def __init__(self, request: StreamRequest, rate: int) -> None:
        """Read the request; `rate` is that of its speech."""
        self.request, self.arrived = request, time.monotonic()
        self.controls = Controls()
        self.speech: Array | None = None
        self.error: Exception | None = None
        self.skipped, self.is_received = 0, False
        self._done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        try:
            self.controls = Controls.of(request)
            is_needed = not (request.is_start or self.has_controls or self.ends_segment)
            self.speech = read_speech(request, rate, may_be_short=self.ends_segment, is_needed=is_needed)
        except InvalidField as error:
            self.error = error.with_traceback(None)
        if not request.is_start:  # it may wait for long
            request.inputs.clear()

    @property
    def has_controls(self) -> bool:
        """Whether it asks for anything besides its speech."""
        return self.controls != Controls()

    @property
    def ends_segment(self) -> bool:
        """Whether no more speech of the segment follows it."""
        return self.request.is_end or self.controls.ends_segment or bool(self.controls.rest)

    @property
    def rests(self) -> bool:
        """Whether it asks for frames at rest until the next request."""
        return self.controls.rest == UNTIL_NEXT_REQUEST

    @property
    def samples(self) -> int:
        """Number of samples of its speech."""
        return 0 if self.speech is None else self.speech.size

    def drop(self) -> int:
        """Drop what it asks for, all but an answer to `clear`; return the samples that the timeline does not know."""
        dropped = 0 if self.is_received else self.samples
        self.controls, self.speech, self.error = Controls(self.controls.clear), None, None
        return dropped

    def complete(self, error: Exception | None = None) -> None:
        """End the wait: all frames are sent, or the request failed with `error`. Again, it does nothing."""
        if not self._done.done():
            self._done.set_result(error)

    async def wait(self) -> None:
        """Wait for the end, and raise what the request failed with."""
        if error := await self._done:
            raise error


class RequestQueue:
    """The requests that wait, in their order."""

    def __init__(self) -> None:
        self._waiting: deque[PendingRequest] = deque()
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def extend(self, requests: Iterable[PendingRequest]) -> None:
        """Add requests at the end."""
        self._waiting.extend(requests)
        self._arrived.set()

    def drain(self) -> list[PendingRequest]:
        """Remove and return all requests."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    async def take(self, max_samples: int) -> list[PendingRequest]:
        """Wait for a request; return it and those after it, up to so much speech, or up to one that rests."""
        await self._wait()
        taken = [self._waiting.popleft()]
        while self._waiting and not taken[-1].rests and sum(each.samples for each in taken) < max_samples:
            taken.append(self._waiting.popleft())
        return taken

    async def ends_rest(self, until: float) -> bool:
        """Return True as soon as there is a request, and False at the time `until`; reject invalid ones meanwhile."""
        while True:
            while self._waiting and self._waiting[0].error:
                invalid = self._waiting.popleft()
                invalid.complete(invalid.error)
            if self._waiting:
                return True
            try:
                async with asyncio.timeout(until - time.monotonic()):
                    await self._wait()
            except TimeoutError:
                return False

    async def _wait(self) -> None:
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()


def is_acknowledgment(request: StreamRequest) -> bool:
    """Return whether a request only says what its caller has read."""
    asks = {*INPUTS, CLEAR, SEGMENT_END, REST} & request.inputs.keys()
    return RECEIVED in request.inputs and not (request.is_start or request.is_end or asks)


def _number(request: StreamRequest, name: str, default: int) -> int:
    value = request.array(name)
    return default if value is None else int(value[0])


def _flag(request: StreamRequest, name: str) -> bool:
    value = _number(request, name, 0)
    if value not in (0, 1):
        raise InvalidField(name, f"1, or 0 for the same as without it, expected, got {value}")
    return bool(value)


def _format(request: StreamRequest) -> str:
    frame_format = request.texts().get("format", "").strip().lower() or FORMATS[0]
    if frame_format not in FORMATS:
        raise InvalidField("format", f"one of {', '.join(FORMATS)} expected, got {quoted(frame_format)}")
    return frame_format
