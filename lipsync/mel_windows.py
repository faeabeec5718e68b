"""Select the mel columns that belong to each frame of the result."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .arrays import Floats
from .errors import InvalidInput
from .mel import HOP_LENGTH, MEL_STEPS_PER_SECOND
from .tensors import MEL_BANDS, WINDOW_COLUMNS

MAX_FPS = 1000.0  # so that one number cannot make a call produce gigabytes of windows
BLOCK_WINDOWS = 1024  # windows that are cut at once, 5 MiB
MIN_SAMPLES = (WINDOW_COLUMNS - 1) * HOP_LENGTH  # the shortest audio with one complete window, 187.5 ms


def window_starts(columns: int, fps: float) -> NDArray[np.int64]:
    """Return the first mel column of each frame's window.

    Frame i takes 16 columns from `int(i · step)` with `step = 80 / fps` computed first, in float64.
    The first window that would run past the end becomes the last 16 columns, and ends the clip.
    Source: `inference.py` of Rudrabha/Wav2Lip.

    Args:
        columns: mel columns of the speech, at least 16.
        fps: frames per second of the result.

    Returns:
        INT64 [frames], at least one.

    Raises:
        InvalidInput: fewer than 16 columns, or a frame rate that is not a positive number up to 1000.
    """
    if columns < WINDOW_COLUMNS:
        raise InvalidInput(f"audio: too short for one window of {WINDOW_COLUMNS} mel columns (0.2 s)")
    step = columns_per_frame(fps)
    last = columns - WINDOW_COLUMNS
    bound = int((last + 1) / step) + 2  # one more than needed at least; cut below at the first that runs over
    starts = np.minimum(np.arange(bound, dtype=np.float64) * step, columns).astype(np.int64)
    whole = int(np.argmax(starts > last))
    return np.append(starts[:whole], last)


def columns_per_frame(fps: float) -> float:
    """Return the step from one window to the next, in mel columns.

    Raises:
        InvalidInput: a frame rate that is not a positive number up to 1000.
    """
    if not (np.isfinite(fps) and fps > 0):
        raise InvalidInput(f"fps: a positive number expected, got {fps}")
    if fps > MAX_FPS:
        raise InvalidInput(f"fps: {MAX_FPS:g} at most, got {fps}")
    step = MEL_STEPS_PER_SECOND / float(fps)
    if not math.isfinite(step):
        raise InvalidInput(f"fps: too small a number, {fps}")
    return step


def count_windows(columns: int, fps: float) -> int:
    """Return the number of windows of a spectrogram, without making them. Raises as `columns_per_frame`."""
    return math.ceil((columns - WINDOW_COLUMNS + 1) / columns_per_frame(fps)) + 1


def mel_windows(mel: Floats, fps: float) -> Floats:
    """Cut a mel spectrogram FP32 [80, columns] into FP32 [frames, 80, 16], one window per frame.

    Raises:
        InvalidInput: as `window_starts`.
    """
    starts = window_starts(mel.shape[1], fps)
    windows = np.empty((len(starts), MEL_BANDS, WINDOW_COLUMNS), np.float32)
    for first in range(0, len(starts), BLOCK_WINDOWS):  # at once, the columns of all bands would be a second copy
        columns = starts[first : first + BLOCK_WINDOWS, None] + np.arange(WINDOW_COLUMNS)
        windows[first : first + BLOCK_WINDOWS] = mel[:, columns].transpose(1, 0, 2)
    return windows
