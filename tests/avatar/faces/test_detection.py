"""The sizes of the images in which faces are detected; boxes are in pixels of the original image."""

import cv2
import numpy as np
import pytest

from avatar.context import JobContext, RequestLogger
from avatar.faces import detection
from avatar.inference.protocol import ServedNet
from avatar.testing import FakeInference
from tests.support.media import Frames, find_square


def square(width: int, height: int, at: tuple[int, int], side: int) -> Frames:
    image = np.zeros((height, width, 3), np.uint8)
    cv2.rectangle(image, at, (at[0] + side - 1, at[1] + side - 1), (255, 255, 255), -1)
    return image


class Recorder(FakeInference):
    """Records the sizes of its images, and detects squares of at least 20 pixels."""

    def __init__(self) -> None:
        super().__init__(lambda image: box if (box := find_square(image)) and box[2] - box[0] >= 20 else None)
        self.sizes: list[tuple[int, ...]] = []

    async def detect_faces(self, frames: Frames) -> tuple[np.ndarray, np.ndarray]:
        self.sizes.append(frames.shape[1:3])
        return await super().detect_faces(frames)


def job(models: FakeInference) -> JobContext:
    return JobContext(models, RequestLogger("test"))


async def test_a_small_image_is_searched_at_its_own_size() -> None:
    models = Recorder()
    boxes, _ = await detection.detect_full_frame(square(640, 480, (100, 50), 80), job(models))
    np.testing.assert_array_equal(boxes[0], [100, 50, 180, 130])
    assert models.sizes == [(480, 640)]


async def test_a_larger_image_is_scaled_down() -> None:
    models = Recorder()
    boxes, scores = await detection.detect_full_frame(square(1920, 1080, (900, 300), 300), job(models))
    np.testing.assert_allclose(boxes[0], [900, 300, 1200, 600], atol=4)
    assert scores[1:].max() == 0
    assert not boxes[1:].any()
    assert [high * wide <= detection.SEARCH_PIXELS for high, wide in models.sizes] == [True]


async def test_if_nothing_is_found_in_the_small_image_the_whole_is_searched() -> None:
    models = Recorder()
    boxes, _ = await detection.detect_full_frame(square(1920, 1080, (900, 300), 40), job(models))
    np.testing.assert_array_equal(boxes[0], [900, 300, 940, 340])
    assert models.sizes[1:] == [(1080, 1920)]


async def test_the_region_around_a_box_is_searched_at_its_own_size() -> None:
    models = Recorder()
    boxes, scores = await detection.detect_in_roi(
        square(1920, 1080, (900, 300), 100), np.array([890, 310, 1000, 400], np.float32), job(models)
    )
    np.testing.assert_array_equal(boxes[0], [900, 300, 1000, 400])
    assert scores[0] > 0
    ((high, wide),) = models.sizes
    assert high % detection.GRID == wide % detection.GRID == 0
    assert high * wide < 512 * 512


async def test_the_region_around_a_huge_face_is_scaled_down() -> None:
    models = Recorder()
    boxes, _ = await detection.detect_in_roi(
        square(3840, 2160, (900, 100), 1500), np.array([900, 100, 2400, 1600], np.float32), job(models)
    )
    np.testing.assert_allclose(boxes[0], [900, 100, 2400, 1600], atol=6)
    assert models.sizes[0][0] * models.sizes[0][1] <= detection.ROI_PIXELS


@pytest.mark.parametrize(
    "box", [(0, 0, 50, 60), (600, 440, 640, 480), (-90, -90, -10, -10), (700, 500, 800, 600), (300, 200, 301, 201)]
)
def test_a_region_is_inside_the_image_and_starts_on_the_grid(box: tuple[int, ...]) -> None:
    rows, columns = detection.roi(np.array(box, np.float32), 640, 480)
    for one, size in ((rows, 480), (columns, 640)):
        assert 0 <= one.start < one.stop <= size
        assert one.start % detection.GRID == 0
        assert one.stop % detection.GRID == 0 or one.stop == size


def test_the_frames_of_a_call_follow_the_batch_of_the_detector() -> None:
    cpu, gpu = ServedNet(4), ServedNet(16, on_gpu=True)
    sizes = [(160, 120), (640, 480), (1280, 720), (3840, 2160)]
    assert [detection.batch_frames(*size, cpu) for size in sizes] == [4, 4, 1, 1]
    assert [detection.batch_frames(*size, gpu) for size in sizes] == [16, 16, 4, 1]
    assert detection.calls_in_flight(gpu) > detection.calls_in_flight(cpu)
