import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lipsync.motion import MotionTracker

Image = NDArray[np.uint8]
BOX = np.array([140, 90, 220, 190], np.float32)


def scene(shift: tuple[float, float] = (0, 0), scale: float = 1.0, seed: int = 0) -> Image:
    """Return a textured patch at `BOX`, moved and scaled about its middle, in front of a still background."""
    rng = np.random.RandomState(seed)
    background = cv2.resize(rng.randint(0, 256, (30, 40, 3), np.uint8), (400, 300), interpolation=cv2.INTER_CUBIC)
    patch = cv2.resize(rng.randint(0, 256, (14, 12, 3), np.uint8), (120, 140), interpolation=cv2.INTER_CUBIC)
    matrix = np.array([[scale, 0, 180 + shift[0] - 60 * scale], [0, scale, 140 + shift[1] - 70 * scale]], np.float32)
    mask = cv2.warpAffine(np.full(patch.shape[:2], 255, np.uint8), matrix, (400, 300))
    moved = cv2.warpAffine(patch, matrix, (400, 300), borderMode=cv2.BORDER_REPLICATE)
    return np.where(mask[..., None] > 127, moved, background).astype(np.uint8)


@pytest.mark.parametrize(("shift", "scale"), [((0, 0), 1.0), ((6, -4), 1.0), ((-3.5, 2.25), 1.03), ((0, 9), 0.97)])
def test_a_box_follows_its_content(shift: tuple[float, float], scale: float) -> None:
    motion = MotionTracker(scene(), BOX)
    assert motion.update(scene(shift, scale))
    middle, half = np.array([180 + shift[0], 140 + shift[1]]), np.array([40, 50]) * scale
    np.testing.assert_allclose(motion.box, [*(middle - half), *(middle + half)], atol=0.8)


def test_a_box_follows_many_small_movements() -> None:
    motion = MotionTracker(scene(), BOX)
    for n in range(1, 31):
        assert motion.update(scene((n, 0.5 * n)))
    np.testing.assert_allclose(motion.box, np.add(BOX, (30, 15, 30, 15)), atol=2)


def test_a_cut_to_another_image_is_detected() -> None:
    motion = MotionTracker(scene(), BOX)
    assert not motion.update(scene(seed=1))


def test_an_image_without_corners_cannot_be_tracked() -> None:
    flat = np.full((300, 400, 3), 90, np.uint8)
    assert not MotionTracker(flat, BOX).update(flat)


def test_a_slow_change_of_the_content_is_detected_at_some_point() -> None:
    one, other = scene(), scene(seed=3)
    motion = MotionTracker(one, BOX)
    trusted = [motion.update(cv2.addWeighted(one, 1 - n / 20, other, n / 20, 0).astype(np.uint8)) for n in range(1, 21)]
    assert trusted[0]
    assert not all(trusted)


@pytest.mark.parametrize("box", [(-50, -60, -10, -5), (390, 290, 450, 380), (10, 10, 12, 12)])
def test_a_box_that_is_outside_or_tiny_cannot_be_tracked(box: tuple[int, ...]) -> None:
    motion = MotionTracker(scene(), np.array(box, np.float32))
    assert not motion.update(scene())
