"""The speech of a conversation, from the moment it is said until its frames have been received."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.int16]


@dataclass
class SegmentMark:
    """Where a segment of the speech ends.

    Attributes:
        position: samples before it.
        is_reported: whether the caller ended the segment; a pause may end one, too.
        is_empty: whether the server has nothing to send for it.
    """

    position: int
    is_reported: bool
    is_empty: bool = False


class SpeechTape:
    """Samples and the ends of segments, in order: first those that were sent, and then those that wait.

    What was sent stays here until its frames have been received, so that another session can take over.

    Attributes:
        said: number of samples of all speech, without what was cleared before it was sent.
        sent: how many of them were sent.
    """

    def __init__(self) -> None:
        self.said = self.sent = 0
        self._waiting: deque[Pcm] = deque()
        self._sent: deque[Pcm] = deque()
        self._waiting_marks: deque[SegmentMark] = deque()
        self._sent_marks: deque[SegmentMark] = deque()
        self._last_mark = 0  # position of the last end of a segment

    @property
    def waiting(self) -> int:
        """The number of samples that wait to be sent."""
        return self.said - self.sent

    @property
    def is_open(self) -> bool:
        """Whether the last segment has not ended."""
        return self.said > self._last_mark

    @property
    def is_pending(self) -> bool:
        """Whether anything waits, or has not been received."""
        return bool(self._waiting or self._sent or self._waiting_marks or self._sent_marks)

    @property
    def has_waiting(self) -> bool:
        """Whether samples or the end of a segment wait."""
        return bool(self._waiting or self._waiting_marks)

    def add(self, samples: Pcm) -> None:
        """Append speech."""
        if len(samples):
            self._waiting.append(samples)
            self.said += len(samples)

    def end_segment(self, *, is_reported: bool = True) -> None:
        """End the segment after the speech that was added last."""
        self._waiting_marks.append(SegmentMark(self.said, is_reported))
        self._last_mark = self.said

    def take(self, at_most: int, at_least: int) -> tuple[Pcm, SegmentMark | None] | None:
        """Return what to send next, and the end of the segment where it is reached; None where that has to wait.

        Args:
            at_most: samples that may be sent.
            at_least: samples that one request needs where the segment does not end with it.
        """
        mark = self._waiting_marks[0] if self._waiting_marks else None
        size = (mark.position if mark else self.said) - self.sent
        if size > max(at_most, 0):
            mark, size = None, at_most
        if mark is None and size < max(at_least, 1):
            return None
        if mark:
            self._sent_marks.append(self._waiting_marks.popleft())
        return self._move(size), mark

    def received(self, position: int) -> None:
        """Drop the samples before a position, whose frames have been received."""
        start = self.sent - sum(map(len, self._sent))
        while self._sent and start < position:
            first = self._sent.popleft()
            if start + len(first) > position:
                self._sent.appendleft(first[position - start :])
                return
            start += len(first)

    def segment_received(self) -> bool:
        """Drop the first segment that was sent: whether the caller ended it."""
        if not self._sent_marks:
            return False
        mark = self._sent_marks.popleft()
        self.received(mark.position)
        return mark.is_reported

    def empty_received(self) -> int:
        """Drop the ends of empty segments that are next: how many of them the caller ended."""
        count = 0
        while self._sent_marks and self._sent_marks[0].is_empty:
            count += self._sent_marks.popleft().is_reported
        return count

    def rewind(self) -> None:
        """Let everything wait again whose frames have not been received."""
        self.sent -= sum(map(len, self._sent))
        self._waiting.extendleft(reversed(self._sent))
        for mark in self._sent_marks:
            mark.is_empty = False
        self._waiting_marks.extendleft(reversed(self._sent_marks))
        self._sent.clear()
        self._sent_marks.clear()

    def clear(self) -> None:
        """Drop everything."""
        self.said = self._last_mark = self.sent
        for each in (self._waiting, self._sent, self._waiting_marks, self._sent_marks):
            each.clear()

    def _move(self, size: int) -> Pcm:
        parts: list[Pcm] = []
        left = size
        while left > 0:
            first = self._waiting.popleft()
            if len(first) > left:
                self._waiting.appendleft(first[left:])
                first = first[:left]
            parts.append(first)
            left -= len(first)
        self._sent.extend(parts)
        self.sent += size
        return np.concatenate(parts) if parts else np.zeros(0, np.int16)
