"""A live session that answers as the service does, without one, and what starts such sessions in its place."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from avatar_client import (
    AvatarClientError,
    Cancelled,
    Frame,
    SessionInfo,
)
from avatar_client._events import Cleared, SegmentEnd

RATE, SIZE = 24_000, 960  # samples per second, and per frame at 25 fps
LOOKAHEAD = 5 * SIZE  # speech that a frame needs after its own


class FakeSession:
    """Does as the service: frames follow the speech, `rest` sends frames of silence, and `clear` drops the rest."""

    def __init__(self, level: int = 10) -> None:
        self.info = SessionInfo(Fraction(25), 6, 4, 1, 0.2, "bgr", sample_rate=RATE)
        self.calls: list[str] = []
        self.cleared: list[int | None] = []
        self.holds_cleared = False
        self.is_cancelled = threading.Event()
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._level, self._index, self._first, self._segments = level, 0, 0, 0
        self._speech = np.zeros(0, np.int16)
        self._sent = 0

    def send(self, samples: np.ndarray) -> None:
        self.calls.append("send")
        self._add(samples)
        while len(self._speech) >= SIZE + LOOKAHEAD:
            self._frame(SIZE)

    def end_segment(self, samples: np.ndarray | None = None) -> None:
        self.calls.append("end_segment")
        if samples is not None:
            self._add(samples)
        while len(self._speech):
            self._frame(min(SIZE, len(self._speech)))
        self._put(SegmentEnd(self._segments, self._first, self._index - 1, 0.0))
        self._segments, self._first = self._segments + 1, self._index

    def rest(self, frames: int | None = None) -> None:
        self.calls.append("rest")
        for _ in range(5):
            self._put(self._image(np.zeros(SIZE, np.int16), None))

    def clear(self, shown: int | None = None) -> None:
        self.calls.append("clear")
        self.cleared.append(shown)
        self._speech = self._speech[:0]
        if not self.holds_cleared:
            self.answer_clear()

    def answer_clear(self) -> None:
        self._put(Cleared(self._index - 1, self._index, 0.0))

    def cancel(self) -> None:
        self.is_cancelled.set()
        self._put(Cancelled("the session was cancelled"))

    def fail(self, error: AvatarClientError) -> None:
        self._put(error)

    def events(self) -> Iterator[Any]:
        while True:
            event = self._events.get()
            if isinstance(event, Exception):
                raise event
            yield event

    def _add(self, samples: np.ndarray) -> None:
        self._speech = np.concatenate((self._speech, samples))
        self._sent += len(samples)

    def _frame(self, size: int) -> None:
        start = self._sent - len(self._speech)
        sound = np.zeros(SIZE, np.int16)
        sound[:size], self._speech = self._speech[:size], self._speech[size:]
        self._put(self._image(sound, start / RATE))

    def _image(self, sound: np.ndarray, time: float | None) -> Frame:
        image = np.full((4, 6, 3), (1, 2, self._level), np.uint8)  # BGR
        self._index += 1
        return Frame(self._index - 1, image, None, (0, 0, 0, 0), sound, time)

    def _put(self, event: object) -> None:
        self._events.put(event)


class Server:
    """Starts sessions, as `connect` of a conversation; `errors` fail the next ones."""

    def __init__(self) -> None:
        self.sessions: list[FakeSession] = []
        self.errors: list[Exception] = []
        self.has_second = threading.Event()

    def connect(self) -> Any:
        if self.errors:
            raise self.errors.pop(0)
        self.sessions.append(FakeSession(10 + len(self.sessions)))
        if len(self.sessions) == 2:
            self.has_second.set()
        return self.sessions[-1]

    @property
    def session(self) -> FakeSession:
        return self.sessions[-1]
