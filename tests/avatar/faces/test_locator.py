"""Which box each frame has: detected, given, padded, smoothed or interpolated; and frames without a face."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avatar.context import JobContext, RequestLogger
from avatar.errors import FaceNotFound, InvalidField
from avatar.faces.locator import locate_faces
from avatar.media.image import StillImage
from avatar.options import Detection, FaceOrder, NoFace, Options
from avatar.testing import FakeInference
from lipsync.arrays import Floats, Images
from lipsync.boxes import pad, smooth
from tests.support.faces import boxes_of, locate, without_face
from tests.support.media import find_square, moving_square, read_video, write_video

KEEP = Options(no_face=NoFace.KEEP)
EXACT = Detection.EXACT


async def test_boxes_are_padded_and_smoothed_as_the_options_say(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(12))
    squares = np.array([find_square(frame) for frame in read_video(path)], np.int32)
    for options, expected in (
        (Options(detection=EXACT), smooth(pad(squares, 160, 120))),
        (Options(detection=EXACT, smooth=False), pad(squares, 160, 120)),
        (Options(detection=EXACT, pads=(5, 0, 3, 200)), smooth(pad(squares, 160, 120, (5, 0, 3, 200)))),
    ):
        np.testing.assert_array_equal(boxes_of(await locate(path, 12, options)), expected)


@pytest.mark.parametrize("no_face", list(NoFace))
async def test_a_given_box_is_used_without_detection(tmp_path: Path, no_face: NoFace) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(5))
    models = FakeInference(lambda image: None)
    frames = await locate(path, 8, Options(box=(10, 90, 20, 100), no_face=no_face), models)
    np.testing.assert_array_equal(boxes_of(frames), [[20, 10, 100, 90]] * 8)
    assert all(frame.found for frame in frames)
    assert models.frame_count == 0


async def test_a_given_box_outside_the_image_is_rejected(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(5))
    with pytest.raises(InvalidField, match="box: must lie inside the 160x120 image"):
        await locate(path, 5, Options(box=(0, 121, 0, 20)))


async def test_the_error_has_the_time_of_the_first_frame_without_a_face(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", without_face(moving_square(26), 20, 22))
    with pytest.raises(FaceNotFound) as error:
        await locate(path, 26, Options())
    assert error.value.seconds == Fraction(20, 25)


async def test_a_short_gap_is_interpolated_and_a_long_one_stays(tmp_path: Path) -> None:
    short, long = range(5, 8), range(30, 60)
    path = write_video(tmp_path / "a.mp4", without_face(moving_square(80), *short, *long))
    frames = await locate(path, 90, KEEP, FakeInference(find_square))
    assert sum(not frame.found for frame in frames) == 33 + 3  # including those of the second pass
    assert [n for n, frame in enumerate(frames) if frame.box is None] == list(long)
    boxes = boxes_of(frames[4:9])
    assert (np.diff(boxes[:, 0]) > 0).all()  # the face moves to the right
    np.testing.assert_array_equal(boxes_of(frames[85:86]), boxes_of(frames[5:6]))


async def test_a_clip_without_any_face_stays_as_it_is(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(6))
    frames = await locate(path, 9, KEEP, FakeInference(lambda image: None))
    assert [frame.box for frame in frames] == [None] * 9
    assert not any(frame.found for frame in frames)


async def test_with_a_face_in_every_frame_keep_gives_the_same_frames_as_fail(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(30))
    kept, failing = [await locate(path, 40, options) for options in (KEEP, Options())]
    for one, other in zip(kept, failing, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(boxes_of(kept), boxes_of(failing))


async def test_a_still_without_a_face_may_be_kept() -> None:
    job = JobContext(FakeInference(lambda image: None), RequestLogger("test"), KEEP)
    still = StillImage(moving_square(1)[0])
    frames = [frame async for frame in locate_faces(still, 5, job)]
    assert [frame.box for frame in frames] == [None] * 5
    assert not any(frame.found for frame in frames)


async def test_a_person_is_tracked_though_another_gets_the_better_score(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(20))

    class TwoPeople(FakeInference):
        async def detect_faces(self, frames: Images) -> tuple[Floats, Floats]:
            boxes, scores = await super().detect_faces(frames)
            other = np.array([120, 80, 155, 115], np.float32)
            for n in range(len(frames)):
                swap = self.frame_count % 8 < 4
                square = boxes[n, 0].copy()
                boxes[n, :2] = (other, square) if swap else (square, other)
            scores[:, :2] = (0.99, 0.98)
            return boxes, scores

    for order, far in ((FaceOrder.LEFT, False), (FaceOrder.RIGHT, True)):
        frames = await locate(path, 20, Options(face=order, smooth=False), TwoPeople(find_square))
        assert [bool(frame.box[0] == 120) for frame in frames if frame.box is not None] == [far] * 20
