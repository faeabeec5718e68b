"""Sends the speech of a conversation to its session, and knows what of it came back."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from ._errors import AvatarClientError
from ._speech_tape import SpeechTape
from ._still_session import ConversationSession

AHEAD = 1.0  # seconds of speech that are sent before their frames are taken: an interruption wastes no more
MIN_SECONDS = 0.02  # of one request, but for the last one of a segment
# of a session that has ended: its thread reports that, and then all of its speech is sent to another one
_ENDED = (AvatarClientError, RuntimeError)


class SpeechSender:
    """The speech, and the session that it is sent to.

    Attributes:
        tape: the speech.
        session: None before the first one.
        shown: position in the speech up to which the viewer has seen and heard it.
    """

    def __init__(self, sample_rate: int, on_segment_end: Callable[[], None]) -> None:
        """Start without a session. `on_segment_end` is called for each segment that the caller ended."""
        self.tape = SpeechTape()
        self.session: ConversationSession | None = None
        self.shown = 0
        self._rate, self._on_segment_end = sample_rate, on_segment_end
        self._base = 0  # position at which the session started
        self._is_open = self._is_resting = False  # as far as the session knows

    def use(self, session: ConversationSession) -> None:
        """Give a session all speech whose frames were not received."""
        self.tape.rewind()
        self.session, self._base = session, self.tape.sent
        self._is_open = self._is_resting = False
        self.send()

    def send(self) -> None:
        """Send the speech that there is room for; let the face rest where nothing more is said."""
        if self.session:
            with suppress(*_ENDED):
                self._send(self.session)

    def clear(self, last_shown: int | None) -> None:
        """Drop all speech, here and in the session, after the frame that was shown last."""
        self.tape.clear()
        self.shown = self.tape.sent
        self._is_open = self._is_resting = False
        if self.session:
            with suppress(*_ENDED):
                self.session.clear(last_shown)

    def received(self, sound: NDArray[np.int16], time: float) -> int:
        """Take note of a frame with its sound and its time in the session; return the position at its end."""
        position = min(self._base + round(time * self._rate) + len(sound), self.tape.sent)
        self.tape.received(position)
        return position

    def segment_received(self) -> None:
        """Take note of the end of a segment."""
        if self.tape.segment_received():
            self._on_segment_end()
        self._end_empty_segments()

    def _send(self, session: ConversationSession) -> None:
        at_least = math.ceil(MIN_SECONDS * self._rate)
        while piece := self.tape.take(self._room(), at_least):
            samples, mark = piece
            if mark is None:
                self._is_open, self._is_resting = True, False
                session.send(samples)
            elif self._is_open or len(samples):
                self._is_open = self._is_resting = False
                session.end_segment(samples if len(samples) else None)
            else:
                mark.is_empty = True
                self._end_empty_segments()
        if not (self._is_open or self._is_resting or self.tape.has_waiting):
            self._is_resting = True
            session.rest()

    def _room(self) -> int:
        return round(AHEAD * self._rate) - (self.tape.sent - self.shown)

    def _end_empty_segments(self) -> None:
        for _ in range(self.tape.empty_received()):
            self._on_segment_end()
