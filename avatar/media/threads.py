"""The one place that decides how many threads the work around the models gets: encoder, decoders, filters, OpenCV.

Programs count the cores of the machine. In a container with a quota, or with several jobs at once, that many threads
only take time slices from each other. So every number here is a share: of the cores that this process may use, and
among the jobs that run when an ffmpeg starts.
"""

from __future__ import annotations

import cv2

from lipsync.triton.cpu import usable_cores

from ..load import LOAD

PROBE_THREADS = 1  # one frame is decoded: with more threads, ffmpeg decodes as many frames before it returns the first

# How many frames a thread takes at once, to decode or to finish them: the way to a thread and back costs as much as
# finishing a small frame. As many wait in memory.
TURN_FRAMES, TURN_BYTES = 4, 8 << 20


def frames_per_turn(width: int, height: int) -> int:
    """Return how many BGR frames of this size a thread takes at once."""
    return max(1, min(TURN_FRAMES, TURN_BYTES // (width * height * 3)))


def encoder_threads() -> int:
    """Return a job's share of a quarter of the cores: decoding, blending and above all the models run meanwhile."""
    return LOAD.share(usable_cores() // 4)


def decoder_threads() -> int:
    """Return a job's share of half of the cores, for a decoder and the filters after it: it works only at times."""
    return LOAD.share(usable_cores() // 2)


def limit_opencv() -> None:
    """Limit OpenCV in this process to a quarter of the cores; by itself it takes all of the machine's.

    Its threads wait for each other with their cores: a second one on two cores took a quarter more of the processor
    time around the models, and made no job faster.
    """
    cv2.setNumThreads(max(1, usable_cores() // 4))
