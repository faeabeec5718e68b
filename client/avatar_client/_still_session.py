"""What a conversation uses while it has no server: the last image, with the speech as it is."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ._events import Cleared, Frame, SegmentEnd

Pcm = NDArray[np.int16]


class ConversationSession(Protocol):
    """What a conversation calls of its session. None of it waits."""

    def send(self, samples: Pcm) -> None:
        """Send speech."""

    def end_segment(self, samples: Pcm | None = None) -> None:
        """End a segment of the speech, with the last of it."""

    def rest(self, frames: int | None = None) -> None:
        """Ask for frames of the face at rest."""

    def clear(self, shown: int | None = None) -> None:
        """Drop the speech whose frames were not shown."""

    def cancel(self) -> None:
        """End the session."""


class StillSession:
    """A session without a server: at once a frame for each part of the speech, and none at rest."""

    def __init__(
        self, image: NDArray[np.uint8], fps: Fraction, sample_rate: int, on_event: Callable[[object], None]
    ) -> None:
        """Make a session whose events go to `on_event`, while its methods run."""
        self._image, self._fps, self._rate, self._on_event = image, fps, sample_rate, on_event
        self._rest = np.zeros(0, np.int16)
        self._frames = self._segments = 0
        self._first = 0  # frame of the segment
        self._samples = 0  # before the next frame

    def send(self, samples: Pcm) -> None:
        """Emit the frames that are complete."""
        self._rest = np.concatenate((self._rest, samples))
        while len(self._rest) >= self._size():
            self._emit(self._size())

    def end_segment(self, samples: Pcm | None = None) -> None:
        """Emit the last frame, padded by silence, and the end of the segment."""
        self.send(np.zeros(0, np.int16) if samples is None else samples)
        if len(self._rest):
            self._emit(len(self._rest))
        duration = float((self._frames - self._first) / self._fps)
        self._on_event(SegmentEnd(self._segments, self._first, self._frames - 1, duration))
        self._segments, self._first = self._segments + 1, self._frames

    def rest(self, frames: int | None = None) -> None:
        """Do nothing: the viewer still sees the last image."""

    def clear(self, shown: int | None = None) -> None:
        """Drop what was not emitted."""
        dropped = len(self._rest) / self._rate
        self._samples += len(self._rest)
        self._rest = self._rest[:0]
        self._on_event(Cleared(self._frames - 1, self._frames, dropped))

    def cancel(self) -> None:
        """Do nothing."""

    def _size(self) -> int:
        """Return the samples of the next frame, so that all frames together are as long as the speech."""
        return round((self._frames + 1) * self._rate / self._fps) - round(self._frames * self._rate / self._fps)

    def _emit(self, count: int) -> None:
        sound = np.zeros(self._size(), np.int16)
        sound[:count] = self._rest[:count]
        time = self._samples / self._rate
        self._rest, self._samples = self._rest[count:], self._samples + count
        self._frames += 1
        self._on_event(Frame(self._frames - 1, self._image, None, (0, 0, 0, 0), sound, time))
