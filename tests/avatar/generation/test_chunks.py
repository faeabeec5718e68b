"""How frames are grouped into chunks, and what of them is sent to the model."""

from collections.abc import AsyncGenerator, Iterable

import numpy as np
import pytest

from avatar.faces.locator import LocatedFrame
from avatar.generation.chunks import CHUNK_FRAMES, CHUNK_PIXELS, LipSyncChunk, chunk_frames, crop_to_boxes
from avatar.generation.mel import MelWindows
from lipsync.arrays import Box, Floats, Image
from lipsync.face_crop import crop
from tests.support.media import moving_square

BOX: Box = np.array([10, 20, 50, 60], np.int32)


class CountingWindows(MelWindows):
    """Gives each frame a window that holds the frame's index."""

    def __init__(self) -> None:
        """Need no speech."""

    async def read(self, first: int, count: int) -> Floats:
        return np.arange(first, first + count, dtype=np.float32)[:, None, None].repeat(80, 1).repeat(16, 2)


async def chunked(images: Iterable[Image], boxes: Iterable[Box | None]) -> list[LipSyncChunk]:
    async def frames() -> AsyncGenerator[LocatedFrame]:
        for image, box in zip(images, boxes, strict=True):
            yield LocatedFrame(image, box, box is not None)

    return [chunk async for chunk in chunk_frames(frames(), CountingWindows())]


def lengths(chunks: list[LipSyncChunk]) -> list[int]:
    return [len(chunk.images) for chunk in chunks]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [1]),
        (CHUNK_FRAMES, [CHUNK_FRAMES]),
        (2 * CHUNK_FRAMES + 3, [CHUNK_FRAMES, CHUNK_FRAMES, 3]),
        (0, []),
    ],
)
async def test_frames_are_grouped_in_order_each_with_its_window(count: int, expected: list[int]) -> None:
    images = list(moving_square(count)) if count else []
    chunks = await chunked(images, [BOX + n for n in range(count)])
    assert lengths(chunks) == expected
    assert [image for chunk in chunks for image in chunk.images] == images or count == 0
    for chunk in chunks:
        assert chunk.boxes is not None
        np.testing.assert_array_equal(chunk.windows[:, 0, 0], chunk.boxes[:, 0] - 10)  # the frame's index


async def test_frames_without_a_face_form_chunks_of_their_own() -> None:
    boxes = [BOX, BOX, None, None, None, BOX]
    chunks = await chunked(moving_square(6), boxes)
    assert [(len(chunk.images), chunk.boxes is None) for chunk in chunks] == [(2, False), (3, True), (1, False)]
    np.testing.assert_array_equal(np.concatenate([chunk.windows for chunk in chunks])[:, 0, 0], range(6))


async def test_chunks_of_large_frames_are_short_but_those_of_a_still_are_not() -> None:
    large = np.zeros((CHUNK_PIXELS // 4000 // 4, 4000, 3), np.uint8)  # four of them are one chunk
    assert lengths(await chunked([large.copy() for _ in range(9)], [BOX] * 9)) == [4, 4, 1]
    (still,) = await chunked([large] * CHUNK_FRAMES, [BOX] * CHUNK_FRAMES)
    assert still.is_still


def test_the_crop_gives_the_same_faces_as_the_whole_frames() -> None:
    images = list(moving_square(5))
    boxes = np.array([(10 + 3 * n, 20, 60 + n, 70 + 2 * n) for n in range(5)], np.int32)
    crops, moved = crop_to_boxes(images, boxes, still=False)
    assert len(crops) == 5
    assert crops[0].shape == (58, 54, 3)
    assert all(np.shares_memory(cropped, image) for cropped, image in zip(crops, images, strict=True))
    np.testing.assert_array_equal(crop(np.stack(crops), moved), crop(np.stack(images), boxes))


def test_of_a_still_one_crop_and_one_box_are_sent() -> None:
    (image,) = moving_square(1)
    crops, moved = crop_to_boxes([image] * 4, np.stack([BOX] * 4), still=True)
    assert [cropped.shape for cropped in crops] == [(40, 40, 3)]
    np.testing.assert_array_equal(moved, [[0, 0, 40, 40]])
