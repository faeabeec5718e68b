"""A frame in planes of YUV is the whole frame with its mouth, converted; only what changed is computed."""

from unittest import mock

import numpy as np
import pytest

from avatar.generation import finishing
from avatar.generation.finishing import FrameFinisher, pad_to_even, to_even
from avatar.options import Blend
from lipsync.blend import feather
from lipsync.face_crop import paste
from lipsync.yuv import to_yuv420
from tests.support.media import moving_square

RANDOM = np.random.default_rng(3)
SIZES = [(160, 120), (161, 120), (160, 121), (161, 121)]


def expected(image: np.ndarray, box: np.ndarray, mouth: np.ndarray, blend: Blend) -> np.ndarray:
    if blend is Blend.FEATHER:
        return to_yuv420(pad_to_even(feather(image, box, mouth)))
    return to_yuv420(pad_to_even(paste(image[None], box[None], mouth[None])[0]))


def random_box(width: int, height: int) -> np.ndarray:
    """Return a box somewhere in the image; many of its sides are edges of the image, or one pixel away."""
    x1, x2 = sorted(RANDOM.choice(width + 1, 2, replace=False))
    y1, y2 = sorted(RANDOM.choice(height + 1, 2, replace=False))
    near = RANDOM.integers(0, 6, 4)
    box = np.array(
        [
            near[0] if near[0] < 3 else x1,
            near[1] if near[1] < 3 else y1,
            width - near[2] if near[2] < 3 else x2,
            height - near[3] if near[3] < 3 else y2,
        ],
        np.int32,
    )
    return box if (box[:2] < box[2:]).all() else random_box(width, height)


@pytest.mark.parametrize("blend", list(Blend))
@pytest.mark.parametrize("size", SIZES)
def test_the_planes_are_those_of_the_whole_frame_wherever_the_box_is(size: tuple[int, int], blend: Blend) -> None:
    image, finisher = moving_square(1, *size)[0], FrameFinisher(blend)
    for _ in range(40):
        box, mouth = random_box(*size), RANDOM.integers(0, 256, (96, 96, 3), np.uint8)
        planes = finisher.finish(image, box, mouth)
        np.testing.assert_array_equal(planes, expected(image, box, mouth, blend))
        assert planes.flags.c_contiguous


def test_a_still_is_converted_for_its_first_two_frames_only_and_its_frames_are_independent() -> None:
    image, finisher = moving_square(1)[0], FrameFinisher(Blend.ORIGINAL)
    box, mouths = np.array([10, 20, 70, 90], np.int32), RANDOM.integers(0, 256, (5, 96, 96, 3), np.uint8)
    with mock.patch.object(finishing, "to_yuv420", wraps=to_yuv420) as converted:
        frames = [finisher.finish(image, box, mouth) for mouth in mouths]
        unchanged = finisher.finish(image, None, None)
    assert converted.call_count == 2
    for frame, mouth in zip(frames, mouths, strict=True):
        np.testing.assert_array_equal(frame, expected(image, box, mouth, Blend.ORIGINAL))
    np.testing.assert_array_equal(unchanged, to_yuv420(image))


def test_a_still_whose_frames_show_a_face_only_at_times_is_right_in_each() -> None:
    image, finisher = moving_square(1)[0], FrameFinisher(Blend.ORIGINAL)
    box, mouth = np.array([10, 20, 70, 90], np.int32), RANDOM.integers(0, 256, (96, 96, 3), np.uint8)
    shows_face = (True, False, False, True, True, False)
    frames = [finisher.finish(image, box if shows else None, mouth) for shows in shows_face]
    for frame, shows in zip(frames, shows_face, strict=True):
        whole = expected(image, box, mouth, Blend.ORIGINAL) if shows else to_yuv420(image)
        np.testing.assert_array_equal(frame, whole)


def test_each_frame_of_a_video_is_converted_and_stays_as_it_was() -> None:
    images, finisher = moving_square(4), FrameFinisher(Blend.ORIGINAL)
    before, box, mouth = images.copy(), np.array([11, 21, 70, 91], np.int32), np.full((96, 96, 3), 77, np.uint8)
    for image in images:
        np.testing.assert_array_equal(finisher.finish(image, box, mouth), expected(image, box, mouth, Blend.ORIGINAL))
    np.testing.assert_array_equal(images, before)


def test_a_frame_for_a_background_replacer_stays_bgr() -> None:
    image, box = moving_square(1, 161, 121)[0], np.array([10, 20, 70, 90], np.int32)
    mouth = np.full((96, 96, 3), 77, np.uint8)
    finisher = FrameFinisher(Blend.ORIGINAL)
    pasted = paste(image[None], box[None], mouth[None])[0]
    np.testing.assert_array_equal(finisher.finish_bgr(image, box, mouth), pad_to_even(pasted))
    np.testing.assert_array_equal(finisher.finish_bgr(image, None, None), pad_to_even(image))


def test_a_side_is_rounded_up_to_an_even_number() -> None:
    assert [to_even(side) for side in (1, 2, 3, 1080)] == [2, 2, 4, 1080]
