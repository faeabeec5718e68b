"""Decide how many frames pass until the next detection."""

from __future__ import annotations

MIN_SEGMENT, MAX_SEGMENT = 4, 32  # frames
# Frames at most while the detector wavers: several of its boxes have to be averaged
WAVERING_SEGMENT = 12
STEADY_IOU = 0.92  # mean steadiness from which more frames than that may pass
FIRST_STEADINESS = 0.85  # assumed of a detector of which nothing is known: it has to prove that it is steady
GROW_IOU, SHRINK_IOU = 0.9, 0.88  # agreement from which segments get longer, and below which they get shorter
MEMORY = 0.7  # share of the mean steadiness that the next detection leaves


class Cadence:
    """The length of the next segment, by how well motion and detector agreed, and by how steady the detector is.

    The two differ: a motion that drifts from the face disagrees with a steady detector, and the correction of the path
    follows that drift through a long segment, too. What a detector wavers has to be averaged.

    Attributes:
        length: frames of the next segment.
    """

    def __init__(self) -> None:
        self.length = MIN_SEGMENT
        self._steadiness = FIRST_STEADINESS

    def restart(self) -> None:
        """Start with short segments again, after a cut."""
        self.length = MIN_SEGMENT

    def agreed(self, overlap: float) -> None:
        """Take the overlap (IoU) of the detected and the expected box at the end of a segment, 0 without a face."""
        if overlap >= GROW_IOU:
            self.length *= 2
        elif overlap < SHRINK_IOU:
            self.length = max(MIN_SEGMENT, self.length // 2)
        self.length = min(self.length, MAX_SEGMENT if self._steadiness >= STEADY_IOU else WAVERING_SEGMENT)

    def measured(self, steadiness: float) -> None:
        """Take the overlap (IoU) of a detected box with the one that its neighbors give: `CorrectedPath.steadiness`."""
        self._steadiness = MEMORY * self._steadiness + (1 - MEMORY) * steadiness
