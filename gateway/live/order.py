"""Put the frames and marks of a session in order. Pure: knows nothing of streams.

On a busy machine Triton sends the last responses to one request after the first ones to the next.
"""

from __future__ import annotations

from avatar.inference.live_stream import LiveEvent, LiveFrame, LiveMark


class FrameOrder:
    """Holds frames until those before them have come, and marks until their frames have come."""

    def __init__(self) -> None:
        self._next = 0
        self._frames: dict[int, LiveFrame] = {}
        self._segments: list[LiveMark] = []
        self._clears = 0  # that have no answer yet

    def clear(self) -> None:
        """Note that `clear` was sent: no frame is passed on until its answer comes."""
        self._clears += 1

    def add(self, event: LiveEvent) -> list[LiveEvent]:
        """Return what may be passed on now, in order."""
        if isinstance(event, LiveFrame):
            if event.index >= self._next:
                self._frames[event.index] = event
            return self._ready()
        if event.kind == "cleared":
            return self._cleared(event)
        if event.kind == "segment":
            self._segments.append(event)
            return self._ready()
        return [*self._rest(), event]

    def _ready(self) -> list[LiveEvent]:
        ready: list[LiveEvent] = []
        while not self._clears and self._next in self._frames:
            ready += self._ended_segments()
            ready.append(self._frames.pop(self._next))
            self._next += 1
        return [*ready, *self._ended_segments()]

    def _ended_segments(self) -> list[LiveMark]:
        """Take the segments of which all frames were passed on."""
        ended = [mark for mark in self._segments if int(mark.data["last"]) < self._next]
        self._segments = [mark for mark in self._segments if mark not in ended]
        return sorted(ended, key=lambda mark: int(mark.data["last"]))

    def _cleared(self, mark: LiveMark) -> list[LiveEvent]:
        """Drop the frames before the next one, which may also still come."""
        self._clears -= 1
        self._next = max(self._next, int(mark.data["next"]))
        self._frames = {index: frame for index, frame in self._frames.items() if index >= self._next}
        return [*self._ended_segments(), mark, *self._ready()]

    def _rest(self) -> list[LiveEvent]:
        """Take all that is left, at the end of the session."""
        ready = self._ready()
        for index in sorted(self._frames):
            ready.append(self._frames.pop(index))
            self._next = index + 1
            ready += self._ended_segments()
        return ready
