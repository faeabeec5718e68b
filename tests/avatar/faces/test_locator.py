"""Which frame is shown when, where its face is, and what becomes of frames without one."""

from contextlib import aclosing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from avatar.context import JobContext, RequestLogger
from avatar.errors import FaceNotFound, InvalidField
from avatar.faces import locator
from avatar.faces.locator import Seen, Tracker, fill_gaps
from avatar.media.image import Still
from avatar.media.video import look
from avatar.options import Detection, ExtendMode, NoFace, Options, FaceOrder
from avatar.testing import FakeModels
from lipsync.boxes import pad, smooth
from tests.support.media import Frames, find_square, moving_square, read_video, write_video

KEEP = Options(no_face=NoFace.KEEP)


async def track(path: Path, total: int, options: Options, models: FakeModels) -> tuple[list[Seen], Tracker]:
    job = JobContext(models, RequestLogger("test"), options)
    tracker = Tracker(await look(path, job), total, job)
    async with aclosing(tracker.frames()) as frames:
        return [seen async for seen in frames], tracker


async def tracked(path: Path, total: int, options: Options, models: FakeModels | None = None) -> list[Seen]:
    return (await track(path, total, options, models or FakeModels(find_square)))[0]


def numbers(seen: list[Seen], source: Frames) -> list[int]:
    """Which frame of the source each one is."""
    return [int(np.argmin([np.abs(picture.astype(int) - frame).sum() for frame in source])) for picture, _ in seen]


def blank(frames: Frames, *gone: int) -> Frames:
    frames = frames.copy()
    frames[list(gone)] = frames[list(gone)] // 2  # nothing white is left
    return frames


@pytest.fixture(params=["kept in memory", "decoded again"])
def room(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "decoded again":
        monkeypatch.setattr(locator, "KEPT_BYTES", 0)
        monkeypatch.setattr(locator, "REVERSED_BYTES", 3 * 160 * 120 * 3)


@pytest.mark.parametrize(
    ("longer", "order"),
    [
        (ExtendMode.LOOP, [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 0, 1, 2]),
        (ExtendMode.BOUNCE, [0, 1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3, 4]),
        (ExtendMode.HOLD, [0, 1, 2, 3, 4, 5, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6]),
    ],
)
async def test_a_video_shorter_than_the_speech(tmp_path: Path, room: None, longer: ExtendMode, order: list[int]) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(7))
    source, models = read_video(path), FakeModels(find_square)
    seen = await tracked(path, 17, Options(extend=longer), models)
    assert numbers(seen, source) == order
    assert models.frames == 7  # each is looked at once
    boxes = [box for _, box in seen]
    np.testing.assert_array_equal(boxes, np.array(boxes[:7])[order])


@pytest.mark.parametrize("longer", list(ExtendMode))
async def test_a_video_of_one_frame_is_shown_again_and_again(tmp_path: Path, room: None, longer: ExtendMode) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(1))
    assert len(await tracked(path, 9, Options(extend=longer))) == 9


@pytest.mark.parametrize("longer", list(ExtendMode))
async def test_a_video_longer_than_the_speech_is_cut(tmp_path: Path, longer: ExtendMode) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(12))
    assert numbers(await tracked(path, 5, Options(extend=longer)), read_video(path)) == [0, 1, 2, 3, 4]


async def test_boxes_are_padded_and_smoothed_as_asked(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(12))
    found = np.array([find_square(frame) for frame in read_video(path)], np.int32)
    for options, wanted in (
        (Options(), smooth(pad(found, 160, 120))),
        (Options(smooth=False), pad(found, 160, 120)),
        (Options(pads=(5, 0, 3, 200)), smooth(pad(found, 160, 120, (5, 0, 3, 200)))),
    ):
        np.testing.assert_array_equal([box for _, box in await tracked(path, 12, options)], wanted)


async def test_a_given_box_is_taken_without_looking(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(5))
    models = FakeModels(lambda picture: None)
    seen = await tracked(path, 8, Options(box=(10, 90, 20, 100)), models)
    np.testing.assert_array_equal([box for _, box in seen], [[20, 10, 100, 90]] * 8)
    assert models.frames == 0


async def test_a_given_box_outside_the_picture_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(5))
    with pytest.raises(InvalidField, match="box: it reaches outside the 160x120 picture"):
        await tracked(path, 5, Options(box=(0, 121, 0, 20)))


async def test_the_first_frame_without_a_face_is_told_by_its_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", blank(moving_square(26), 20, 22))
    with pytest.raises(FaceNotFound) as error:
        await tracked(path, 26, Options())
    assert error.value.seconds == Fraction(20, 25)


@pytest.mark.parametrize("first", [0, 1, 49, 50, 137, 399])
async def test_a_long_stretch_without_a_face_is_found_before_the_rest_is_looked_at(tmp_path: Path, first: int) -> None:
    gone = range(first, 400) if first < 399 else [399]
    path = write_video(tmp_path / "a.mp4", blank(moving_square(400, 64, 64), *gone))
    models = FakeModels(find_small)
    with pytest.raises(FaceNotFound) as error:
        await tracked(path, 400, Options(), models)
    assert error.value.seconds == Fraction(first, 25)
    assert models.frames < 40 or first == 399
    assert models.calls["lipsync"] == 0


def find_small(picture: Frames) -> tuple[float, float, float, float] | None:
    return (10, 10, 50, 50) if (picture > 200).all(axis=2).any() else None


async def test_frames_that_were_looked_at_before_their_turn_are_not_looked_at_again(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(230))
    models = FakeModels(find_square)
    seen = await tracked(path, 230, Options(detection=Detection.EXACT), models)
    assert models.frames == 230
    found = np.array([find_square(frame) for frame in read_video(path)], np.int32)
    np.testing.assert_array_equal([box for _, box in seen], smooth(pad(found, 160, 120)))


async def test_a_short_gap_is_bridged_and_a_long_one_passes(tmp_path: Path) -> None:
    short, long = range(5, 8), range(30, 60)
    path = write_video(tmp_path / "a.mp4", blank(moving_square(80), *short, *long))
    seen, tracker = await track(path, 90, KEEP, FakeModels(find_square))
    assert tracker.without_face == 33 + 3  # and those of the second time round
    assert [n for n, (_, box) in enumerate(seen) if box is None] == list(long)
    near = np.array([box for _, box in seen[4:9]])
    assert (np.diff(near[:, 0]) > 0).all()  # on its way
    np.testing.assert_array_equal(seen[85][1], seen[5][1])


async def test_a_clip_without_any_face_passes_as_it_is(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(6))
    seen, tracker = await track(path, 9, KEEP, FakeModels(lambda picture: None))
    assert [box for _, box in seen] == [None] * 9
    assert tracker.without_face == 9


async def test_with_a_face_everywhere_keeping_changes_nothing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(30))
    kept, failing = [await tracked(path, 40, options) for options in (KEEP, Options())]
    for (one, box), (other, another) in zip(kept, failing, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(box, another)


async def test_a_still_without_a_face_may_be_kept() -> None:
    job = JobContext(FakeModels(lambda picture: None), RequestLogger("test"), KEEP)
    tracker = Tracker(Still(moving_square(1)[0]), 5, job)
    assert [box async for _, box in tracker.frames()] == [None] * 5
    assert tracker.without_face == 5


async def test_a_person_is_followed_though_another_gets_the_better_score(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(20))

    class TwoPeople(FakeModels):
        async def detect_faces(self, frames: Frames) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            boxes, scores = await super().detect_faces(frames)
            other = np.array([120, 80, 155, 115], np.float32)
            for n in range(len(frames)):
                swap = self.frames % 8 < 4
                square = boxes[n, 0].copy()
                boxes[n, :2] = (other, square) if swap else (square, other)
            scores[:, :2] = (0.99, 0.98)
            return boxes, scores

    for side, far in ((FaceOrder.LEFT, False), (FaceOrder.RIGHT, True)):
        seen = await tracked(path, 20, Options(face=side, smooth=False), TwoPeople(find_square))
        assert [bool(box[0] == 120) for _, box in seen if box is not None] == [far] * 20


@pytest.mark.parametrize("smoothed", [True, False])
def test_boxes_without_gaps_are_smoothed_as_ever(smoothed: bool) -> None:
    boxes = np.random.RandomState(0).randint(0, 50, (23, 4)).astype(np.int32)
    wanted = smooth(boxes) if smoothed else boxes
    np.testing.assert_array_equal(fill_gaps(list(boxes), 25, smoothed=smoothed), wanted)


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("11.11", "11111"),
        ("1..1", "1111"),
        ("1...1", "1...1"),
        ("..1..1.", "..1111."),
        ("", ""),
        ("....", "...."),
        ("1.1...1.1", "111...111"),
    ],
)
def test_gaps_up_to_the_bound_are_filled_and_nothing_else(pattern: str, wanted: str) -> None:
    boxes = [np.full(4, 10 * n, np.int32) if mark == "1" else None for n, mark in enumerate(pattern)]
    bridged = fill_gaps(boxes, 2, smoothed=False)
    assert "".join("." if box is None else "1" for box in bridged) == wanted
    assert all(box is None or box[0] == 10 * n for n, box in enumerate(bridged))
