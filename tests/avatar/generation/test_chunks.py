"""How frames are grouped into chunks, and what of them is sent to the model."""

from collections.abc import AsyncGenerator, Iterable

import numpy as np
import pytest

from avatar.faces.locator import LocatedFrame
from avatar.generation.chunks import (
    CHUNK_PIXELS,
    FIRST_FRAMES,
    FaceCropper,
    LipSyncChunk,
    chunk_frames,
    max_chunk_frames,
)
from avatar.generation.mel import MelWindows
from avatar.inference.protocol import ServedNet
from lipsync.arrays import Box, Floats, Image
from lipsync.face_crop import crop
from lipsync.tensors import WAV2LIP_BATCH
from tests.support.media import moving_square

CHUNK_FRAMES = max_chunk_frames(ServedNet(WAV2LIP_BATCH))
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

    return [chunk async for chunk in chunk_frames(frames(), CountingWindows(), CHUNK_FRAMES)]


def lengths(chunks: list[LipSyncChunk]) -> list[int]:
    return [len(chunk.images) for chunk in chunks]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [1]),
        (FIRST_FRAMES, [FIRST_FRAMES]),
        (CHUNK_FRAMES, [FIRST_FRAMES, 2 * FIRST_FRAMES, CHUNK_FRAMES - 3 * FIRST_FRAMES]),
        (3 * FIRST_FRAMES + 2 * CHUNK_FRAMES + 3, [FIRST_FRAMES, 2 * FIRST_FRAMES, CHUNK_FRAMES, CHUNK_FRAMES, 3]),
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
    still = await chunked([large] * 3 * CHUNK_FRAMES, [BOX] * 3 * CHUNK_FRAMES)
    assert max(lengths(still)) == CHUNK_FRAMES


def test_the_size_of_a_chunk_follows_the_batch_of_the_generator_up_to_a_limit() -> None:
    nets = [ServedNet(1), ServedNet(8), ServedNet(32), ServedNet(64, on_gpu=True), ServedNet(512, on_gpu=True)]
    assert [max_chunk_frames(net) for net in nets] == [1, 4, 16, 32, 64]


def test_the_faces_are_those_of_the_library() -> None:
    images = list(moving_square(5))
    boxes = np.array([(10 + 3 * n, 20, 60 + n, 70 + 2 * n) for n in range(5)], np.int32)
    np.testing.assert_array_equal(FaceCropper().crop(images, boxes), crop(np.stack(images), boxes))
    moving = np.stack([BOX, BOX, BOX + 1, BOX, BOX])
    expected = crop(np.stack([images[0]] * 5), moving)
    np.testing.assert_array_equal(FaceCropper().crop([images[0]] * 5, moving), expected)


def test_the_face_of_a_still_is_cropped_once() -> None:
    first, second = moving_square(2)
    cropper, boxes = FaceCropper(), np.stack([BOX] * 4)
    faces = [cropper.crop([first] * 4, boxes), cropper.crop([first] * 3, boxes[:3])]
    assert [len(each) for each in faces] == [4, 3]
    assert np.shares_memory(faces[0][0], faces[1][2])
    np.testing.assert_array_equal(faces[0], crop(first[None], BOX[None], 4))
    for image, box in ((second, BOX), (second, BOX + 2), (first, BOX)):
        np.testing.assert_array_equal(cropper.crop([image] * 2, np.stack([box] * 2)), crop(image[None], box[None], 2))
