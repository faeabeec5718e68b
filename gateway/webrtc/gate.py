"""Tell speech from silence in a track of audio, which never pauses. Pure: samples in, speech out."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 48_000  # of WebRTC's audio, Opus
_BLOCK = SAMPLE_RATE // 50
THRESHOLD = 104.0  # root mean square of a block with speech: -50 dB of full scale
BEFORE_BLOCKS = 10  # blocks before the first loud one that belong to the speech: 0.2 s
AFTER_BLOCKS = 30  # quiet blocks that belong to it: 0.6 s

Samples = NDArray[np.int16]


class SpeechGate:
    """Passes speech on, with a little of what is around it."""

    def __init__(self) -> None:
        self._waiting = np.zeros(0, np.int16)
        self._before: deque[Samples] = deque(maxlen=BEFORE_BLOCKS)
        self._quiet = AFTER_BLOCKS
        self.is_open = False

    def feed(self, samples: Samples) -> tuple[bytes, bool]:
        """Take the next samples, INT16 at 48 kHz; return the speech among them, and whether it has ended with them."""
        self._waiting = np.concatenate([self._waiting, samples])
        speech: list[Samples] = []
        has_ended = False
        while len(self._waiting) >= _BLOCK:
            block, self._waiting = self._waiting[:_BLOCK], self._waiting[_BLOCK:]
            is_loud = float(np.sqrt(np.mean(block.astype(np.float64) ** 2))) >= THRESHOLD
            self._quiet = 0 if is_loud else self._quiet + 1
            if self._quiet >= AFTER_BLOCKS:
                has_ended, self.is_open = has_ended or self.is_open, False
                self._before.append(block)
                continue
            speech += [*self._before, block]
            self._before.clear()
            has_ended, self.is_open = False, True
        return b"".join(block.tobytes() for block in speech), has_ended
