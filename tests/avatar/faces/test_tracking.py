"""A face followed with few looks: where it is, how often is looked, and what happens when it goes or changes."""

from collections.abc import AsyncGenerator, Callable

import numpy as np

from lipsync.arrays import Floats
import pytest

from avatar.context import JobContext, RequestLogger
from avatar.faces import tracking
from avatar.faces.selection import FaceSelector, overlap
from avatar.faces.tracking import FaceTracker
from avatar.options import FaceOrder
from avatar.testing import Box, FakeModels
from tests.support.media import Frames

SIZE = (60, 50)  # of the face
RNG = np.random.RandomState(0)
FACE = np.kron(RNG.randint(60, 200, (10, 12, 3)), np.ones((5, 5, 1))).astype(np.uint8)
FACE[..., 2] = 255  # red, all of it: how the fake detector knows it
BEHIND = np.kron(RNG.randint(0, 200, (24, 32, 3)), np.ones((10, 10, 1))).astype(np.uint8)


def clip(*places: tuple[float, float] | None) -> Frames:
    """320×240; the face with its top left corner at each of these places, or without one."""
    frames = np.repeat(BEHIND[None], len(places), axis=0).reshape(-1, 240, 320, 3)
    for frame, place in zip(frames, places, strict=True):
        if place:
            x, y = (round(each) for each in place)
            frame[y : y + SIZE[1], x : x + SIZE[0]] = FACE
    return frames


def find(picture: Frames) -> Box | None:
    rows, columns = np.where(picture[..., 2] == 255)
    if not len(rows):
        return None
    return (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def swaying(count: int, speed: float = 1.0) -> list[tuple[float, float]]:
    turns = np.arange(count) * speed * 0.05
    return [(100 + 40 * np.sin(turn), 90 + 20 * np.cos(0.7 * turn)) for turn in turns]


async def followed(
    frames: Frames, models: FakeModels, piece: int = 4, which: FaceOrder = FaceOrder.BEST
) -> tuple[list[Floats | None], Frames]:
    async def pieces() -> AsyncGenerator[Frames]:
        for start in range(0, len(frames), piece):
            yield frames[start : start + piece]

    follower = FaceTracker(FaceSelector(which), JobContext(models, RequestLogger("test")))
    seen = [found async for found in follower.track(pieces())]
    return [box for _, box in seen], np.array([frame for frame, _ in seen])


def true(places: list[tuple[float, float]]) -> list[Floats]:
    corner = [np.array((round(x), round(y)), np.float32) for x, y in places]
    return [np.concatenate((each, each + SIZE)).astype(np.float32) for each in corner]


@pytest.mark.parametrize("piece", [1, 4, 7])
async def test_a_moving_face_is_found_in_every_frame_with_a_few_looks(piece: int) -> None:
    places, models = swaying(200), FakeModels(find)
    boxes, frames = await followed(clip(*places), models, piece)
    np.testing.assert_array_equal(frames, clip(*places))
    overlaps = [
        0.0 if box is None else float(overlap(box, true_one[None])[0])
        for box, true_one in zip(boxes, true(places), strict=True)
    ]
    assert np.mean(overlaps) > 0.97
    assert min(overlaps) > 0.9
    assert models.frames < 40


async def test_the_looks_do_not_hang_on_how_frames_come_or_how_long_the_clip_is() -> None:
    places = swaying(100)
    one, _ = await followed(clip(*places), FakeModels(find), 3)
    other, _ = await followed(clip(*places), FakeModels(find), 8)
    np.testing.assert_array_equal(one, other)
    shorter, _ = await followed(clip(*places[:61]), FakeModels(find))
    np.testing.assert_array_equal(shorter[:36], one[:36])


async def test_a_detector_that_wavers_is_asked_more_often() -> None:
    places = swaying(150, 0.2)
    calm, wild = FakeModels(find), FakeModels(wavering())
    await followed(clip(*places), calm)
    boxes, _ = await followed(clip(*places), wild)
    assert wild.frames > 2 * calm.frames
    assert all(box is not None for box in boxes)


def wavering() -> Callable[[Frames], Box | None]:
    rng = np.random.RandomState(1)

    def see(picture: Frames) -> Box | None:
        box = find(picture)
        return None if box is None else (box[0] - rng.randint(30), box[1], box[2] + rng.randint(30), box[3])

    return see


async def test_a_cut_is_noticed_in_its_own_frame() -> None:
    places = [(40.0, 40.0)] * 21 + [(220.0, 150.0)] * 21
    boxes, _ = await followed(clip(*places), FakeModels(find))
    np.testing.assert_allclose(boxes, true(places), atol=1)


@pytest.mark.parametrize(("first", "after"), [(9, 17), (1, 60), (30, 31), (0, 5)])
async def test_frames_without_a_face_are_told_apart_exactly(first: int, after: int) -> None:
    places: list[tuple[float, float] | None] = list(swaying(60))
    places[first:after] = [None] * (after - first)
    boxes, _ = await followed(clip(*places), FakeModels(find))
    assert [box is None for box in boxes] == [place is None for place in places]


async def test_frames_of_a_large_video_are_held_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "SEGMENT_BYTES", 3 * 320 * 240 * 3)
    places, models = swaying(60, 0.1), FakeModels(find)
    boxes, _ = await followed(clip(*places), models)
    assert all(
        overlap(box, wanted[None])[0] > 0.9 for box, wanted in zip(boxes, true(places), strict=True) if box is not None
    )
    assert models.frames >= 20


async def test_no_frames_are_no_error() -> None:
    assert (await followed(clip(), FakeModels(find)))[0] == []
