"""The order of what a live session sends: Triton may change the order of responses to different requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from ._events import Cleared, Frame, LiveEvent, SegmentEnd


class EventOrder:
    """Frames wait for those before them, and the end of a segment for its frames. A `Cleared` waits for nothing.

    Attributes:
        next: index of the next frame in order.
        first: index that the first frame of the current segment has at least.
    """

    def __init__(self) -> None:
        """Start with frame 0."""
        self.next = self.first = 0
        self._frames: dict[int, Frame] = {}
        self._segments: list[SegmentEnd] = []
        self._cleared: deque[Cleared] = deque()

    def add(self, event: LiveEvent) -> None:
        """Take what was received. Frames and ends that an earlier `Cleared` has made void are dropped."""
        if isinstance(event, Frame):
            if event.index >= self.next:
                self._frames[event.index] = event
        elif isinstance(event, SegmentEnd):
            if event.first >= self.first:
                self._segments.append(event)
        else:
            self.next = self.first = max(self.next, event.next)
            self._frames = {index: frame for index, frame in self._frames.items() if index >= event.next}
            self._segments = [each for each in self._segments if each.first >= event.next]
            self._cleared.append(event)

    def take(self, *, everything: bool = False) -> Iterator[LiveEvent]:
        """Yield the events that nothing has to come before; at the end of the stream, `everything` that is left."""
        while True:
            if self._cleared:
                yield self._cleared.popleft()
            elif ended := next((each for each in self._segments if each.last < self.next), None):
                self._segments.remove(ended)
                self.first = max(self.first, ended.last + 1)
                yield ended
            elif self.next in self._frames or (everything and self._frames):
                frame = self._frames.pop(self.next, None) or self._frames.pop(min(self._frames))
                self.next = frame.index + 1
                yield frame
            elif everything and self._segments:
                yield self._segments.pop(0)
            else:
                return
