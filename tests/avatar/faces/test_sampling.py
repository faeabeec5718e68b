"""A longer clip is sampled while it is processed, so that a stretch without a face is found early."""

import asyncio
from contextlib import aclosing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avatar.context import JobContext, RequestLogger
from avatar.errors import FaceNotFound, Unavailable
from avatar.faces.locator import locate_faces
from avatar.faces.sampling import TASK_NAME
from avatar.limits import LIMITS
from avatar.options import Detection, Options
from avatar.testing import FakeInference
from lipsync.arrays import Image
from lipsync.boxes import pad, smooth
from tests.support.faces import boxes_of, locate, without_face
from tests.support.media import (
    children,
    find_square,
    moving_square,
    other_tasks,
    probe_video,
    read_video,
    until,
    write_video,
)


def find_any_white(image: Image) -> tuple[float, float, float, float] | None:
    return (10, 10, 50, 50) if (image > 200).all(axis=2).any() else None


@pytest.mark.parametrize("detector", list(Detection))
@pytest.mark.parametrize("first", [0, pytest.param(1, marks=pytest.mark.slow), 49, 50, 137, 199])
async def test_the_error_names_the_first_frame_of_a_stretch_without_a_face(
    tmp_path: Path, first: int, detector: Detection
) -> None:
    path = write_video(tmp_path / "a.mp4", without_face(moving_square(200, 64, 64), *range(first, 200)))
    with pytest.raises(FaceNotFound) as error:
        await locate(path, 200, Options(detection=detector), FakeInference(find_any_white))
    assert error.value.seconds == Fraction(first, 25)
    assert not other_tasks()


async def test_a_short_gap_does_not_hide_the_stretch_that_the_samples_find(tmp_path: Path) -> None:
    """The error is the same whether the samples or the frames in their order are faster."""
    path = write_video(tmp_path / "a.mp4", without_face(moving_square(400, 64, 64), 20, *range(137, 400)))
    for detector in Detection:
        with pytest.raises(FaceNotFound) as error:
            await locate(path, 400, Options(detection=detector), FakeInference(find_any_white))
        assert error.value.seconds == Fraction(137, 25)


@pytest.mark.parametrize("detector", list(Detection))
async def test_a_stretch_without_a_face_is_found_while_the_first_frames_are_processed(
    tmp_path: Path, detector: Detection
) -> None:
    path = write_video(tmp_path / "a.mp4", without_face(moving_square(400, 64, 64), *range(300, 400)))
    options, count = Options(detection=detector), 0
    job = JobContext(FakeInference(find_any_white), RequestLogger("test"), options)
    located = locate_faces(await probe_video(path, options, LIMITS), 400, job)
    async with aclosing(located):
        await anext(located)
        await until(lambda: TASK_NAME not in {task.get_name() for task in other_tasks()})
        with pytest.raises(FaceNotFound) as error:
            async for _ in located:
                count += 1
    assert error.value.seconds == Fraction(300, 25)
    assert count < 50
    assert not other_tasks()


async def test_a_clip_that_is_closed_leaves_no_samples(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(400, 64, 64))
    models = FakeInference(find_any_white)
    job = JobContext(models, RequestLogger("test"), Options(detection=Detection.EXACT))
    located = locate_faces(await probe_video(path, job.options, LIMITS), 400, job)
    before = children()
    async with aclosing(located):
        await anext(located)
    assert not other_tasks()
    assert children() == before


async def test_a_detector_that_fails_ends_the_frames_that_wait_for_samples(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(120, 64, 64))
    for detector in Detection:
        models = FakeInference(find_any_white, failures={"detect_faces": Unavailable("gone")})
        async with asyncio.timeout(60):
            with pytest.raises(Unavailable):
                await locate(path, 120, Options(detection=detector), models)
        assert not other_tasks()


async def test_sampled_frames_are_not_detected_again(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(230))
    models = FakeInference(find_square)
    frames = await locate(path, 230, Options(detection=Detection.EXACT), models)
    assert models.frame_count == 230
    squares = np.array([find_square(frame) for frame in read_video(path)], np.int32)
    np.testing.assert_array_equal(boxes_of(frames), smooth(pad(squares, 160, 120)))
