"""The memory of frames stays in the process."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from avatar.media import allocator

# page faults of converting frames of 1280×720, of which one has 340 pages
CONVERT = """
import resource
import cv2
import numpy as np
from avatar.media import allocator
from lipsync.yuv import to_yuv420
if {keep}:
    allocator.keep_freed_memory()
cv2.setNumThreads(1)
frame = np.zeros((720, 1280, 3), np.uint8)
to_yuv420(frame)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    to_yuv420(frame)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, keep: bool) -> int:
    done = subprocess.run([sys.executable, "-c", CONVERT.format(keep=keep)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_the_memory_of_a_frame_is_used_for_the_next_one() -> None:
    assert faults(keep=True) < 340 < 10 * 340 < faults(keep=False)


def test_a_c_library_without_mallopt_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    allocator.keep_freed_memory()
