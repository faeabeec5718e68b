"""`detection=fast` with a real, wavering detector on a real face: how near its boxes are to those of every frame."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from bench.detection import carphone
from bench.detection.cli import SIZES, header, line
from bench.detection.measure import Comparison, compare, detect_every
from bench.detection.mtcnn import Mtcnn
from bench.detection.recording import Recording

BOXES = Path(__file__).parent / "carphone_boxes.json"
# share of the detector's pixels before a path averaged its detections (ADR 32)
MOST_PIXELS = 0.106


def check(result: Comparison) -> None:
    assert result.mean >= 0.95
    assert result.worst >= 0.88
    assert result.pixels <= MOST_PIXELS
    assert result.steady >= result.steady_every


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_boxes_are_near_those_of_every_frame_and_steadier_than_the_detector(width: int, height: int) -> None:
    images = carphone.frames(width, height)
    recording = Recording(BOXES, images)
    check(asyncio.run(compare(images, recording.every, recording.best)))


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_detector_itself_gives_the_boxes_that_are_recorded(width: int, height: int) -> None:
    images, detector = carphone.frames(width, height), Mtcnn()
    recording = Recording(BOXES, images)
    every = asyncio.run(detect_every(images, detector.best))
    np.testing.assert_allclose(every, recording.every, atol=0.5)
    result = asyncio.run(compare(images, every, detector.best))
    print(f"{header()}\n{line(f'{width}×{height}', result)}")
    check(result)
