"""The timeline of a live session: which frame comes next, which sound belongs to it, and when it is due.

Frames are numbered through the whole session, and frame i is shown at i / fps seconds of it. Speech comes in segments:
each begins at the next frame, and its windows are those of a session of its own. Frames at rest may follow. Nothing
here waits, computes a spectrogram, or knows a caller.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from lipsync.arrays import Floats

from .live_speech import Pcm

MAX_SHIFTS = 100  # that are remembered: a frame that was shown is one of the last
AT_REST = -1.0  # the sound's time of a frame without speech


@dataclass(frozen=True)
class SegmentInfo:
    """A segment that is complete: its number, the indexes of its frames, and the seconds of its speech."""

    segment: int
    first: int
    last: int
    duration: float


@dataclass(frozen=True)
class ClearedInfo:
    """What was cleared: the indexes of the last frame that was sent and of the next one; seconds of dropped speech."""

    last: int
    next: int
    dropped: float


class Segment:
    """A part of the speech, from its first frame on."""

    def __init__(self, first: int, start: int) -> None:
        self.first = first  # index of its first frame
        self.start = start  # samples of speech that came before it
        self.samples = 0  # of its speech
        self.has_ended = False
        self.windows: deque[Floats] = deque()  # without a frame yet
        self._sound: Pcm = np.empty(0, np.int16)  # from sample `_from` of the segment on
        self._from = 0

    def receive(self, count: int, sound: Pcm | None) -> None:
        """Add speech, and its sound if that is to be sent back."""
        self.samples += count
        if sound is not None:
            self._sound = np.concatenate((self._sound, sound))

    def sound(self, start: int, stop: int) -> Pcm:
        """Return the samples from `start` to `stop` of the segment, with silence after its end; drop those before."""
        self._sound, self._from = self._sound[start - self._from :], start
        sound = self._sound[: stop - start]
        return np.concatenate((sound, np.zeros(stop - start - sound.size, np.int16)))


@dataclass(frozen=True)
class PlannedFrame:
    """A frame that is to be made.

    Attributes:
        index: its number in the session.
        position: its number in the motion of the avatar.
        window: FP32 [80,16]; None at rest.
        sound: INT16 [n], what is to be heard while it is shown; None without echo.
        sound_time: seconds of all speech that was received, where that begins; `AT_REST` if it is no speech.
        segment: the segment that it belongs to; None at rest.
    """

    index: int
    position: int
    window: Floats | None
    sound: Pcm | None
    sound_time: float
    segment: Segment | None


class Timeline:
    """The frames of one session: planned from windows of speech and rests, and counted when they are sent.

    Attributes:
        next: index of the next frame to plan.
        sent: number of frames that were sent; the index of the next one.
        segments: number of segments that have ended.
        samples: of all speech that was received.
        dropped: samples of it that were dropped.
    """

    def __init__(self, fps: Fraction, rate: int, *, echo: bool) -> None:
        """Begin at frame 0. `rate`: of the speech, in Hz; `echo`: whether frames come with their sound."""
        self.fps, self._rate, self._echo = fps, rate, echo
        self.next = self.sent = self.segments = self.samples = self.dropped = 0
        self._segment: Segment | None = None
        self._last: PlannedFrame | None = None  # of the frames with speech that were sent
        self._cleared = 0  # number of samples of which the rest was dropped
        # From the index on, a frame is this many positions of the avatar's motion before its index.
        self._shifts = [(0, 0)]

    @property
    def is_speaking(self) -> bool:
        """Whether a segment has begun and not ended."""
        return self._segment is not None

    @property
    def duration(self) -> float:
        """Seconds of all speech that was received."""
        return self.samples / self._rate

    def receive(self, count: int, sound: Pcm | None = None) -> None:
        """Take speech of `count` samples, which begins a segment if none has begun; `sound` is needed for echo only."""
        if self._segment is None:
            self._segment = Segment(self.next, self.samples)
        self.samples += count
        self._segment.receive(count, sound if self._echo else None)

    def add(self, windows: Sequence[Floats]) -> list[PlannedFrame]:
        """Plan the frames of the segment that these windows complete; with echo, those whose sound has arrived."""
        assert self._segment  # noqa: S101 - `receive` came before
        self._segment.windows.extend(windows)
        frames = []
        while self._segment.windows and self._is_complete(self._segment):
            frames.append(self._speaking(self._segment, self._segment.windows.popleft()))
        return frames

    def end_segment(self, windows: Sequence[Floats]) -> list[PlannedFrame]:
        """End the speech of the segment with its last windows, and plan its remaining frames."""
        assert self._segment  # noqa: S101
        self._segment.has_ended = True
        return self.add(windows)

    def close_segment(self) -> SegmentInfo:
        """Return what the segment was; where none has begun, one without frames."""
        first, samples = (self._segment.first, self._segment.samples) if self._segment else (self.next, 0)
        self._segment = None
        self.segments += 1
        return SegmentInfo(self.segments - 1, first, self.next - 1, samples / self._rate)

    def rest(self) -> PlannedFrame:
        """Plan a frame at rest."""
        count = self._grid(self.next + 1) - self._grid(self.next)
        return self._planned(None, None, np.zeros(count, np.int16) if self._echo else None, AT_REST)

    def mark_sent(self, frame: PlannedFrame) -> None:
        """Count a frame as sent."""
        self.sent = frame.index + 1
        self._last = frame if frame.segment else self._last

    def clear(self, shown: int, skipped: int) -> ClearedInfo:
        """Drop the segment, and the frames that were planned and not sent.

        Args:
            shown: index of the last frame that was shown, up to `sent - 1`: the motion goes on after it. -1 for the
                last one that was sent.
            skipped: samples of speech that were received and dropped without `receive`.
        """
        self.samples += skipped
        dropped = self.samples - max(self._cleared, self._said())
        self.dropped, self._cleared = self.dropped + dropped, self.samples
        self.segments += self.is_speaking
        self._segment, self.next = None, self.sent
        if 0 <= shown < self.sent - 1:
            shift = self.sent - 1 - self._position(shown)
            self._shifts = [each for each in self._shifts if each[0] < self.sent][1 - MAX_SHIFTS :]
            self._shifts.append((self.sent, shift))
        return ClearedInfo(self.sent - 1, self.sent, dropped / self._rate)

    def _said(self) -> int:
        """Return how many samples of all speech the frames that were sent have shown."""
        if self._last is None or self._last.segment is None:
            return 0
        segment = self._last.segment
        return segment.start + min(segment.samples, self._in_segment(segment, self._last.index + 1))

    def _is_complete(self, segment: Segment) -> bool:
        """Return whether the next frame's sound has arrived, with echo: a frame may last longer than its window."""
        return not self._echo or segment.has_ended or self._in_segment(segment, self.next + 1) <= segment.samples

    def _speaking(self, segment: Segment, window: Floats) -> PlannedFrame:
        start, stop = self._in_segment(segment, self.next), self._in_segment(segment, self.next + 1)
        sound = segment.sound(start, stop) if self._echo else None
        seconds = (segment.start + start) / self._rate if start < segment.samples else AT_REST
        return self._planned(segment, window, sound, seconds)

    def _planned(
        self, segment: Segment | None, window: Floats | None, sound: Pcm | None, seconds: float
    ) -> PlannedFrame:
        frame = PlannedFrame(self.next, self._position(self.next), window, sound, seconds, segment)
        self.next += 1
        return frame

    def _position(self, index: int) -> int:
        """Return where a frame is in the motion of the avatar."""
        at = bisect_right(self._shifts, index, key=lambda each: each[0]) - 1
        return index - self._shifts[max(0, at)][1]

    def _in_segment(self, segment: Segment, index: int) -> int:
        """Return at which sample of the segment a frame begins."""
        return self._grid(index) - self._grid(segment.first)

    def _grid(self, index: int) -> int:
        """Return at which sample of the session a frame begins."""
        return math.floor(index * self._rate / self.fps)


class Clock:
    """When the frames of a session are due.

    A frame of speech can be made `lead` seconds after its own moment, so a player shows all frames that much later, and
    frames at rest are sent that much before they are shown. The clock is put back if the speech, or a rest, comes later
    than its frame would be shown: a player waits for it, too.
    """

    def __init__(self, fps: Fraction, lead: float, now: float) -> None:
        """Start the clock at frame 0."""
        self._fps, self._lead, self._start = fps, lead, now

    def due(self, index: int) -> float:
        """Return the moment of a frame: a frame at rest is sent then."""
        return self._start + float(index / self._fps)

    def reach(self, index: int, when: float) -> float:
        """Return when a frame is shown that nobody could have made before `when`; put the clock back if it is late."""
        shown = self.due(index) + self._lead
        self._start += max(0.0, when - shown)
        return max(shown, when)

    def restart(self, index: int, now: float) -> None:
        """Go on with this frame now: what was to be shown before it is not."""
        self._start = now - float(index / self._fps)
