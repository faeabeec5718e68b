"""A longer clip is sampled first, so that a frame without a face is found before all frames are detected."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avatar.errors import FaceNotFound
from avatar.options import Detection, Options
from avatar.testing import FakeInference
from lipsync.arrays import Image
from lipsync.boxes import pad, smooth
from tests.support.faces import boxes_of, locate, without_face
from tests.support.media import find_square, moving_square, read_video, write_video


def find_any_white(image: Image) -> tuple[float, float, float, float] | None:
    return (10, 10, 50, 50) if (image > 200).all(axis=2).any() else None


@pytest.mark.parametrize("first", [0, 1, 49, 50, 137, 399])
async def test_a_long_stretch_without_a_face_is_found_before_the_other_frames_are_detected(
    tmp_path: Path, first: int
) -> None:
    missing = range(first, 400) if first < 399 else [399]
    path = write_video(tmp_path / "a.mp4", without_face(moving_square(400, 64, 64), *missing))
    models = FakeInference(find_any_white)
    with pytest.raises(FaceNotFound) as error:
        await locate(path, 400, Options(), models)
    assert error.value.seconds == Fraction(first, 25)
    assert models.frame_count < 40 or first == 399
    assert models.calls["wav2lip"] == 0


async def test_sampled_frames_are_not_detected_again(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(230))
    models = FakeInference(find_square)
    frames = await locate(path, 230, Options(detection=Detection.EXACT), models)
    assert models.frame_count == 230
    squares = np.array([find_square(frame) for frame in read_video(path)], np.int32)
    np.testing.assert_array_equal(boxes_of(frames), smooth(pad(squares, 160, 120)))
