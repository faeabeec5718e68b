"""The frames of a pipeline that belong to places in the speech, such as its words: they wait until it comes out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from pipecat.frames.frames import (
    Frame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    TextFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)

# Frames with a time of their own (pts) do not wait: the transport's clock has them.
_KINDS = (TTSStartedFrame, TTSStoppedFrame, TextFrame, LLMFullResponseStartFrame, LLMFullResponseEndFrame)


@dataclass(frozen=True)
class _Held:
    frame: Frame
    position: int  # samples of speech that come before it
    is_after_segment: bool


class SpeechOrder:
    """Holds frames back until the speech before them has come out; knows which context the speech belongs to."""

    def __init__(self) -> None:
        """Start with nothing held."""
        self._held: deque[_Held] = deque()
        self._contexts: deque[tuple[int, TTSAudioRawFrame]] = deque()

    @staticmethod
    def applies_to(frame: Frame) -> bool:
        """Return whether a frame has a place in the speech."""
        return isinstance(frame, _KINDS) and frame.pts is None

    @property
    def is_empty(self) -> bool:
        """Whether no frame is held."""
        return not self._held

    def hold(self, frame: Frame, position: int) -> None:
        """Hold a frame until the speech up to `position` has come out; a TTSStoppedFrame, until the segment's end."""
        self._held.append(_Held(frame, position, isinstance(frame, TTSStoppedFrame)))

    def speak(self, frame: TTSAudioRawFrame, position: int) -> None:
        """Note that the speech from `position` on is that of `frame`."""
        last = self._contexts[-1][1] if self._contexts else None
        if last is None or _context(last) != _context(frame):
            self._contexts.append((position, frame))

    def context_at(self, position: int) -> tuple[str | None, str | None]:
        """Return the context and the destination of the speech that ends at `position`."""
        while len(self._contexts) > 1 and self._contexts[1][0] < position:
            self._contexts.popleft()
        return _context(self._contexts[0][1]) if self._contexts else (None, None)

    def reached(self, position: int) -> Iterator[Frame]:
        """Yield the frames whose speech has come out."""
        while self._held and self._held[0].position <= position and not self._held[0].is_after_segment:
            yield self._held.popleft().frame

    def segment_ended(self) -> Iterator[Frame]:
        """Yield the frames up to the end of the segment that has come out, and those between it and the next one."""
        while self._held:
            held = self._held.popleft()
            yield held.frame
            if held.is_after_segment:
                yield from self.reached(held.position)
                return

    def interrupted(self) -> list[Frame]:
        """Drop what is held; return the frames that no interruption may drop."""
        kept = [each.frame for each in self._held if not each.frame.interruptible]
        self._held.clear()
        self._contexts.clear()
        return kept


def _context(frame: TTSAudioRawFrame) -> tuple[str | None, str | None]:
    return frame.context_id, frame.transport_destination
