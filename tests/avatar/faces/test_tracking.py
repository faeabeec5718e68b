"""Tracking with few detections: where the face is, how many detections that takes, cuts and frames without a face."""

from collections.abc import AsyncGenerator, Callable

import numpy as np
import pytest

from avatar.context import JobContext, RequestLogger
from avatar.faces import tracking
from avatar.faces.selection import FaceSelector
from avatar.faces.tracking import FaceTracker
from avatar.options import FaceOrder
from avatar.testing import Box, FakeInference
from lipsync.arrays import Floats
from lipsync.boxes import iou
from tests.support.media import Frames

SIZE = (60, 50)  # of the face
RNG = np.random.RandomState(0)
FACE = np.kron(RNG.randint(60, 200, (10, 12, 3)), np.ones((5, 5, 1))).astype(np.uint8)
FACE[..., 2] = 255  # all red: the fake detector finds it by that
BACKGROUND = np.kron(RNG.randint(0, 200, (24, 32, 3)), np.ones((10, 10, 1))).astype(np.uint8)


def clip(*places: tuple[float, float] | None) -> Frames:
    """Return frames of 320×240 with the top left corner of the face at these places; None for no face."""
    frames = np.repeat(BACKGROUND[None], len(places), axis=0).reshape(-1, 240, 320, 3)
    for frame, place in zip(frames, places, strict=True):
        if place:
            x, y = (round(each) for each in place)
            frame[y : y + SIZE[1], x : x + SIZE[0]] = FACE
    return frames


def find(image: Frames) -> Box | None:
    rows, columns = np.where(image[..., 2] == 255)
    if not len(rows):
        return None
    return (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def swaying(count: int, speed: float = 1.0) -> list[tuple[float, float]]:
    turns = np.arange(count) * speed * 0.05
    return [(100 + 40 * np.sin(turn), 90 + 20 * np.cos(0.7 * turn)) for turn in turns]


async def tracked(
    frames: Frames, models: FakeInference, chunk: int = 4, order: FaceOrder = FaceOrder.BEST
) -> tuple[list[Floats | None], Frames]:
    async def chunks() -> AsyncGenerator[Frames]:
        for start in range(0, len(frames), chunk):
            yield frames[start : start + chunk]

    tracker = FaceTracker(FaceSelector(order), JobContext(models, RequestLogger("test")))
    result = [frame async for frame in tracker.track(chunks())]
    return [box for _, box in result], np.array([frame for frame, _ in result])


def all_found(boxes: list[Floats | None]) -> Floats:
    present = [box for box in boxes if box is not None]
    assert len(present) == len(boxes)
    return np.array(present)


def true_boxes(places: list[tuple[float, float]]) -> list[Floats]:
    corner = [np.array((round(x), round(y)), np.float32) for x, y in places]
    return [np.concatenate((each, each + SIZE)).astype(np.float32) for each in corner]


@pytest.mark.parametrize("chunk", [4, *(pytest.param(chunk, marks=pytest.mark.slow) for chunk in (1, 7))])
async def test_a_moving_face_is_tracked_through_every_frame_with_few_detections(chunk: int) -> None:
    places, models = swaying(200), FakeInference(find)
    boxes, frames = await tracked(clip(*places), models, chunk)
    np.testing.assert_array_equal(frames, clip(*places))
    overlaps = [
        0.0 if box is None else float(iou(box, expected[None])[0])
        for box, expected in zip(boxes, true_boxes(places), strict=True)
    ]
    assert np.mean(overlaps) > 0.97
    assert min(overlaps) > 0.9
    assert models.frame_count < 40


async def test_the_boxes_depend_neither_on_the_chunks_nor_on_the_length_of_the_clip() -> None:
    places = swaying(100)
    one, _ = await tracked(clip(*places), FakeInference(find), 3)
    other, _ = await tracked(clip(*places), FakeInference(find), 8)
    np.testing.assert_array_equal(all_found(one), all_found(other))
    shorter, _ = await tracked(clip(*places[:61]), FakeInference(find))
    np.testing.assert_array_equal(all_found(shorter[:36]), all_found(one[:36]))


async def test_an_unsteady_detector_is_called_more_often() -> None:
    places = swaying(150, 0.2)
    steady, unsteady = FakeInference(find), FakeInference(jittering())
    await tracked(clip(*places), steady)
    boxes, _ = await tracked(clip(*places), unsteady)
    assert unsteady.frame_count > 2 * steady.frame_count
    assert all(box is not None for box in boxes)


def jittering() -> Callable[[Frames], Box | None]:
    rng = np.random.RandomState(1)

    def detect(image: Frames) -> Box | None:
        box = find(image)
        return None if box is None else (box[0] - rng.randint(30), box[1], box[2] + rng.randint(30), box[3])

    return detect


async def test_a_cut_is_detected_in_its_own_frame() -> None:
    places = [(40.0, 40.0)] * 21 + [(220.0, 150.0)] * 21
    boxes, _ = await tracked(clip(*places), FakeInference(find))
    np.testing.assert_allclose(all_found(boxes), true_boxes(places), atol=1)


@pytest.mark.parametrize(("first", "after"), [(9, 17), (1, 60), (30, 31), (0, 5)])
async def test_exactly_the_frames_without_a_face_have_no_box(first: int, after: int) -> None:
    places: list[tuple[float, float] | None] = list(swaying(60))
    places[first:after] = [None] * (after - first)
    boxes, _ = await tracked(clip(*places), FakeInference(find))
    assert [box is None for box in boxes] == [place is None for place in places]


async def test_segments_of_a_large_video_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "SEGMENT_BYTES", 3 * 320 * 240 * 3)
    places, models = swaying(60, 0.1), FakeInference(find)
    boxes, _ = await tracked(clip(*places), models)
    assert all(
        iou(box, expected[None])[0] > 0.9
        for box, expected in zip(boxes, true_boxes(places), strict=True)
        if box is not None
    )
    assert models.frame_count >= 20


async def test_a_clip_without_frames_is_no_error() -> None:
    assert (await tracked(clip(), FakeInference(find)))[0] == []


@pytest.mark.parametrize("frames_held", [3, 10])
async def test_the_frames_that_wait_for_their_boxes_are_bounded(
    monkeypatch: pytest.MonkeyPatch, frames_held: int
) -> None:
    monkeypatch.setattr(tracking, "SEGMENT_BYTES", frames_held * 320 * 240 * 3)
    read = yielded = most = 0

    async def chunks() -> AsyncGenerator[Frames]:
        nonlocal read, most
        for frame in clip(*swaying(60, 0.1)):
            read += 1
            most = max(most, read - yielded)
            yield frame[None]

    tracker = FaceTracker(FaceSelector(FaceOrder.BEST), JobContext(FakeInference(find), RequestLogger("test")))
    async for _ in tracker.track(chunks()):
        yielded += 1
    assert yielded == 60
    assert most <= frames_held


async def test_a_face_that_turns_keeps_its_path() -> None:
    other = np.random.RandomState(9).randint(60, 200, FACE.shape).astype(np.uint8)
    frames = clip(*swaying(24, 0.2))
    for number, (x, y) in enumerate(swaying(24, 0.2)):  # it turns away within the clip, and so looks different
        part = frames[number, round(y) : round(y) + SIZE[1], round(x) : round(x) + SIZE[0]]
        share = min(1.0, max(0.0, (number - 6) / 12))
        part[..., :2] = (part[..., :2] * (1 - share) + other[..., :2] * share).astype(np.uint8)
    models = FakeInference(find)
    boxes, _ = await tracked(frames, models)
    for box, expected in zip(all_found(boxes), true_boxes(swaying(24, 0.2)), strict=True):
        assert iou(box, expected[None])[0] > 0.9
    assert models.frame_count < 14


async def test_a_detector_that_jumps_once_is_not_asked_in_every_frame_around_the_jump() -> None:
    frames, jump = clip(*[(100.0, 90.0)] * 60), 41

    def jumping(image: Frames) -> Box | None:
        box = find(image)
        number = int(image[0, 0, 0])
        return box if box is None or number < jump else (box[0], box[1] + 25, box[2], box[3])

    frames[:, ::16, ::16, 0] = np.arange(60)[:, None, None]  # each region has the frame's number in its corner
    models = FakeInference(jumping)
    boxes, _ = await tracked(frames, models)
    assert (np.diff(all_found(boxes)[:, 1]) > -0.5).all()
    assert models.frame_count < 10  # it is 11 if every jump is searched for down to its frame
