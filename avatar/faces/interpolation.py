"""Fill short gaps between detected faces by interpolation."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from lipsync.arrays import Box
from lipsync.boxes import smooth


def fill_gaps(
    boxes: Sequence[Box | None], max_gap: int, *, smoothed: bool, cuts: Collection[int] = ()
) -> list[Box | None]:
    """Return the boxes INT32 [4] with every gap of at most `max_gap` frames filled by linear interpolation.

    A longer gap, one at the start or the end, and one with a cut in it stays None. If `smoothed`, each stretch between
    the remaining gaps is smoothed separately, as if it were a clip of its own.

    Args:
        boxes: of each frame; None without a face.
        max_gap: frames.
        smoothed: whether the boxes are smoothed.
        cuts: the frames with which a new scene starts.
    """
    result: list[Box | None] = []
    stretch: list[Box] = []
    missing = 0

    def end_stretch() -> None:
        result.extend(smooth(np.stack(stretch)) if stretch and smoothed else stretch)
        stretch.clear()
        result.extend([None] * missing)

    for index, box in enumerate(boxes):
        if box is None:
            missing += 1
            continue
        has_cut = any(index - missing <= cut <= index for cut in cuts) if missing else False
        if missing and stretch and missing <= max_gap and not has_cut:
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
