"""Mouths are generated for the frames with a box, put into them, and the frames get even sides."""

from collections.abc import AsyncGenerator

import numpy as np
import pytest

from avatar.context import JobContext, RequestLogger
from avatar.generation.chunks import LipSyncChunk
from avatar.generation.generator import generate
from avatar.options import Blend, Generator, Options
from avatar.testing import FakeInference
from lipsync.arrays import Image
from lipsync.blend import feather
from lipsync.face_crop import crop, paste
from lipsync.yuv import to_yuv420
from tests.support.media import moving_square

BOXES = np.array([(10, 20, 70, 90), (12, 22, 72, 92), (14, 24, 74, 94)], np.int32)
WINDOWS = np.zeros((3, 80, 16), np.float32)


async def generated(
    chunk: LipSyncChunk, models: FakeInference, options: Options, *, keep_bgr: bool = False
) -> list[Image]:
    async def chunks() -> AsyncGenerator[LipSyncChunk]:
        yield chunk

    job = JobContext(models, RequestLogger("test"), options)
    return [frame async for frame in generate(chunks(), job, keep_bgr=keep_bgr)]


@pytest.mark.parametrize("blend", list(Blend))
async def test_each_frame_gets_its_mouth_by_the_blend_of_the_options(blend: Blend) -> None:
    images = moving_square(3)
    frames = await generated(LipSyncChunk(list(images), BOXES, WINDOWS), FakeInference(), Options(blend=blend))
    mouths = crop(images, BOXES)  # the fake generator returns the crop itself
    for n, frame in enumerate(frames):
        if blend is Blend.FEATHER:
            expected = feather(images[n], BOXES[n], mouths[n])
        else:
            expected = paste(images[n : n + 1], BOXES[n : n + 1], mouths[n : n + 1])[0]
        np.testing.assert_array_equal(frame, to_yuv420(expected))


async def test_frames_without_a_box_are_unchanged_and_not_sent() -> None:
    images, models = moving_square(3), FakeInference()
    frames = await generated(LipSyncChunk(list(images), None, WINDOWS), models, Options())
    np.testing.assert_array_equal(frames, [to_yuv420(image) for image in images])
    assert models.calls["wav2lip"] == 0


async def test_the_generator_of_the_options_is_used() -> None:
    models = FakeInference()
    chunk = LipSyncChunk(list(moving_square(3)), BOXES, WINDOWS)
    await generated(chunk, models, Options(model=Generator.WAV2LIP_GAN))
    assert models.generators == {Generator.WAV2LIP_GAN}


@pytest.mark.parametrize("boxes", [BOXES, None])
async def test_an_odd_last_row_and_column_are_repeated(boxes: np.ndarray | None) -> None:
    images = moving_square(3, 161, 121)
    for frame in await generated(LipSyncChunk(list(images), boxes, WINDOWS), FakeInference(), Options(), keep_bgr=True):
        assert frame.shape == (122, 162, 3)
        assert frame.flags.c_contiguous
        np.testing.assert_array_equal(frame[121], frame[120])
        np.testing.assert_array_equal(frame[:, 161], frame[:, 160])
