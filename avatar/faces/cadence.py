"""Decide how many frames pass until the next detection."""

from __future__ import annotations

MIN_SEGMENT, MAX_SEGMENT = 4, 32  # frames
# Frames at most while motion and detector do not agree well: several detections have to be averaged
WAVERING_SEGMENT = 12
STEADY_IOU = 0.96  # mean agreement from which more frames than that may pass
GROW_IOU, SHRINK_IOU = 0.9, 0.88  # agreement from which segments get longer, and below which they get shorter
MEMORY = 0.7  # share of the mean that the next agreement leaves


class Cadence:
    """The length of the next segment, by how well the boxes of motion and detector agreed at the ends of the last ones.

    Attributes:
        length: frames of the next segment.
    """

    def __init__(self) -> None:
        self.length = MIN_SEGMENT
        self._mean: float | None = None

    def restart(self) -> None:
        """Start with short segments again, after a cut."""
        self.length = MIN_SEGMENT

    def agreed(self, overlap: float) -> None:
        """Take the overlap (IoU) of the detected and the expected box at the end of a segment, 0 without a face."""
        self._mean = overlap if self._mean is None else MEMORY * self._mean + (1 - MEMORY) * overlap
        if overlap >= GROW_IOU:
            self.length *= 2
        elif overlap < SHRINK_IOU:
            self.length = max(MIN_SEGMENT, self.length // 2)
        self.length = min(self.length, MAX_SEGMENT if self._mean >= STEADY_IOU else WAVERING_SEGMENT)
