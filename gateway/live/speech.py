"""Collect the speech of a caller into pieces that the model `live` accepts. Pure: knows nothing of sockets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from avatar.errors import InvalidField

MIN_SECONDS, MAX_SECONDS = 0.02, 30.0  # of one request of `live`
AHEAD_SECONDS = 120.0  # of speech for which no frame has come yet
SAMPLE_BYTES = 2
Samples = NDArray[np.int16]


class SpeechBuffer:
    """The speech that was received and not sent yet, and how far it is ahead of its frames.

    Args:
        sample_rate: of the speech.
    """

    def __init__(self, sample_rate: int) -> None:
        self._least = round(MIN_SECONDS * sample_rate) * SAMPLE_BYTES
        self._most = round(MAX_SECONDS * sample_rate) * SAMPLE_BYTES
        self._bytes_per_second = sample_rate * SAMPLE_BYTES
        self._waiting = bytearray()
        self._sent = 0.0
        self._made = 0.0

    def add(self, pcm: bytes) -> Iterator[Samples]:
        """Take the next speech, INT16 little endian; return the pieces that can be sent now. Raises InvalidField."""
        if len(pcm) % SAMPLE_BYTES:
            raise InvalidField("pcm", f"an even number of bytes expected (16-bit samples), got {len(pcm)}")
        ahead = self._sent - self._made + (len(self._waiting) + len(pcm)) / self._bytes_per_second
        if ahead > AHEAD_SECONDS:
            raise InvalidField("pcm", f"the speech is over {AHEAD_SECONDS:g} s ahead of its frames; send it slower")
        self._waiting += pcm
        return self._pieces()

    def take(self) -> Samples:
        """Return the rest, which may be shorter than a piece, or empty."""
        return self._cut(len(self._waiting))

    def drop(self) -> None:
        """Forget what was not sent, and that frames of what was sent are missing."""
        self._waiting.clear()
        self._made = self._sent

    def advance(self, seconds: float) -> None:
        """Note that a frame has come whose sound begins at this time of the speech; -1 for a frame without speech."""
        self._made = max(self._made, seconds)

    def _pieces(self) -> Iterator[Samples]:
        while len(self._waiting) >= self._least:
            yield self._cut(self._most)

    def _cut(self, size: int) -> Samples:
        piece = np.frombuffer(bytes(self._waiting[:size]), "<i2").astype(np.int16)
        del self._waiting[:size]
        self._sent += piece.nbytes / self._bytes_per_second
        return piece
