"""Fill short gaps between detected faces by interpolation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lipsync.arrays import Box
from lipsync.boxes import smooth


def fill_gaps(boxes: Sequence[Box | None], max_gap: int, *, smoothed: bool) -> list[Box | None]:
    """Return the boxes INT32 [4] with every gap of at most `max_gap` frames filled by linear interpolation.

    A longer gap, and one at the start or the end, stays None. If `smoothed`, each stretch between the remaining gaps is
    smoothed separately, as if it were a clip of its own.
    """
    result: list[Box | None] = []
    stretch: list[Box] = []
    missing = 0

    def end_stretch() -> None:
        result.extend(smooth(np.stack(stretch)) if stretch and smoothed else stretch)
        stretch.clear()
        result.extend([None] * missing)

    for box in boxes:
        if box is None:
            missing += 1
            continue
        if missing and stretch and missing <= max_gap:
            stretch += [_between(stretch[-1], box, (n + 1) / (missing + 1)) for n in range(missing)]
        elif missing:
            end_stretch()
        missing = 0
        stretch.append(box)
    end_stretch()
    return result


def _between(before: Box, after: Box, share: float) -> Box:
    between: Box = (before + (after - before) * share).astype(np.int32)
    return between
