"""Mattes, composition with a background of another size, and alpha channels."""

from collections.abc import AsyncGenerator

import numpy as np
import pytest

from avatar.background.compositing import alpha_matte, composite, resize_to_cover, solid_color, with_alpha
from avatar.options import EdgeMode
from lipsync.yuv import Planes, to_yuv420


def test_a_matte_is_opaque_inside_and_transparent_outside() -> None:
    mask = np.zeros((200, 300), bool)
    mask[50:150, 100:200] = True
    hard, soft = (alpha_matte(mask, edge) for edge in EdgeMode)
    np.testing.assert_array_equal(hard, mask * 255)
    assert soft[60:140, 110:190].min() == 255
    assert soft[~mask].max() < 40
    assert 0 < soft[100, 101] < 255


def test_the_matte_is_the_share_of_the_image() -> None:
    image, background = solid_color((200, 100, 0), 3, 1), solid_color((0, 100, 255), 3, 1)
    mixed = composite(image, np.array([[0, 128, 255]], np.uint8), background)
    np.testing.assert_array_equal(mixed[0, :, ::-1], [(0, 100, 255), (100, 100, 127), (200, 100, 0)])


@pytest.mark.parametrize(("width", "height"), [(100, 50), (40, 50), (300, 20), (7, 300)])
def test_a_background_covers_any_size_in_its_own_proportions(width: int, height: int) -> None:
    image = np.zeros((50, 100, 3), np.uint8)
    image[:, 45:55] = 255  # the middle stays in the middle
    covering = resize_to_cover(image, width, height)
    assert covering.shape == (height, width, 3)
    assert covering[height // 2, width // 2].min() > 200
    np.testing.assert_allclose(covering[:, ::-1].astype(int), covering, atol=2)


async def test_the_alpha_channel_of_a_larger_frame_is_repeated_at_its_edge() -> None:
    async def frames() -> AsyncGenerator[Planes]:
        yield to_yuv420(np.zeros((2, 4, 3), np.uint8))

    matte = np.array([[1, 2, 3]], np.uint8)
    (frame,) = [frame async for frame in with_alpha(frames(), matte)]
    np.testing.assert_array_equal(frame[3:], [(1, 2, 3, 3), (1, 2, 3, 3)])
    np.testing.assert_array_equal(frame[:3], to_yuv420(np.zeros((2, 4, 3), np.uint8)))
