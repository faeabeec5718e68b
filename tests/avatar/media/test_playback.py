"""Which frame of a video is shown when, and that it is the same from memory and from the file."""

import asyncio
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avatar.context import RequestLogger
from avatar.errors import AvatarError
from avatar.limits import LIMITS
from avatar.media import playback
from avatar.media.playback import FrameReader, KeptFrames, frame_index, repeat
from avatar.media.transform import FrameTransform
from avatar.media.video import Video
from avatar.options import ExtendMode, Options
from avatar.testing import FakeInference
from avatar.timing import StageTimer
from tests.support.faces import boxes_of, locate, source_indices
from tests.support.media import Frames, find_square, moving_square, probe_video, read_video, write_video

FRAME_BYTES = 160 * 120 * 3


@pytest.fixture(params=["kept in memory", "decoded again"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to repeat a video; frames that are decoded again are reversed in lots of three."""
    if request.param == "decoded again":
        monkeypatch.setattr(playback, "KEPT_BYTES", 0)
        monkeypatch.setattr(playback, "REVERSED_BYTES", 3 * FRAME_BYTES)


async def reader(path: Path) -> FrameReader:
    return reader_of(await probe_video(path, Options(), LIMITS))


def reader_of(video: Video) -> FrameReader:
    return FrameReader(video, 4, StageTimer(), RequestLogger("test"))


@pytest.mark.parametrize(
    ("mode", "order"),
    [
        (ExtendMode.LOOP, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0]),
        (ExtendMode.BOUNCE, [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0]),
        (ExtendMode.HOLD, [0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3]),
    ],
)
def test_frames_are_shown_in_the_order_of_the_mode(mode: ExtendMode, order: list[int]) -> None:
    assert [frame_index(n, 4, mode) for n in range(13)] == order


@pytest.mark.parametrize(
    ("count", "mode", "order"),
    [
        (2, ExtendMode.LOOP, [0, 1, 0, 1, 0]),
        (2, ExtendMode.BOUNCE, [0, 1, 0, 1, 0]),
        (2, ExtendMode.HOLD, [0, 1, 1, 1, 1]),
        (1, ExtendMode.LOOP, [0, 0, 0, 0, 0]),
        (1, ExtendMode.BOUNCE, [0, 0, 0, 0, 0]),
        (1, ExtendMode.HOLD, [0, 0, 0, 0, 0]),
    ],
)
def test_one_or_two_frames_are_repeated_too(count: int, mode: ExtendMode, order: list[int]) -> None:
    assert [frame_index(n, count, mode) for n in range(5)] == order


Clips = dict[int, tuple[Video, Frames]]  # by the number of their frames, with their frames
# In every mode, at the first frame, and before, at and after the end of a repetition. The others take more passes.
COUNTS_AND_EXTRAS = [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (2, 7), (3, 1), (3, 6), (3, 7), (7, 6), (7, 8)]
COUNTS_AND_EXTRAS += [(7, 0), (7, 1), (7, 7), (7, 23)]
MORE = [(count, extra) for count in (1, 2, 3, 7) for extra in (0, 1, 2, 6, 7, 8, 23)]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """Clips with these numbers of frames."""
    made: Clips = {}
    for count in (1, 2, 3, 7):
        path = write_video(tmp_path_factory.mktemp("clip") / "a.mp4", moving_square(count))
        made[count] = asyncio.run(probe_video(path, Options(), LIMITS)), read_video(path)
    return made


@pytest.mark.parametrize("mode", list(ExtendMode))
@pytest.mark.parametrize(
    ("count", "extra"),
    [
        *COUNTS_AND_EXTRAS,
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in MORE if pair not in COUNTS_AND_EXTRAS),
    ],
)
async def test_what_is_repeated_follows_the_frame_index(
    clips: Clips, memory: None, mode: ExtendMode, count: int, extra: int
) -> None:
    video, source = clips[count]
    frames, total = reader_of(video), count + extra
    kept = KeptFrames(frames.video, total)
    for image in source:
        kept.add(image)
    shown = [frame async for frame in repeat(frames, count, total, mode, kept.images)]
    assert [index for index, _ in shown] == [frame_index(n, count, mode) for n in range(count, total)]
    for index, image in shown:
        np.testing.assert_array_equal(image, source[index])


@pytest.mark.parametrize(
    ("mode", "order"),
    [
        (ExtendMode.LOOP, [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 0, 1, 2]),
        (ExtendMode.BOUNCE, [0, 1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3, 4]),
        (ExtendMode.HOLD, [0, 1, 2, 3, 4, 5, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6]),
    ],
)
async def test_a_video_shorter_than_the_speech(
    tmp_path: Path, memory: None, mode: ExtendMode, order: list[int]
) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(7))
    source, models = read_video(path), FakeInference(find_square)
    frames = await locate(path, 17, Options(extend=mode), models)
    assert source_indices([frame.image for frame in frames], source) == order
    assert models.frame_count == 7  # each is detected once
    boxes = boxes_of(frames)
    np.testing.assert_array_equal(boxes, boxes[:7][order])


@pytest.mark.parametrize("mode", list(ExtendMode))
async def test_a_video_of_one_frame_is_repeated(tmp_path: Path, memory: None, mode: ExtendMode) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(1))
    assert len(await locate(path, 9, Options(extend=mode))) == 9


@pytest.mark.parametrize("mode", list(ExtendMode))
async def test_a_video_longer_than_the_speech_is_cut(tmp_path: Path, mode: ExtendMode) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(12))
    frames = await locate(path, 5, Options(extend=mode))
    assert source_indices([frame.image for frame in frames], read_video(path)) == [0, 1, 2, 3, 4]


async def test_a_held_frame_is_decoded_once(tmp_path: Path) -> None:
    frames = await reader(write_video(tmp_path / "a.mp4", moving_square(5)))
    images = [image async for _, image in repeat(frames, 5, 30, ExtendMode.HOLD)]
    assert len(images) == 25
    assert all(image is images[0] for image in images)


@pytest.mark.parametrize("mode", list(ExtendMode))
async def test_a_video_with_fewer_frames_than_in_the_first_pass_is_an_error(tmp_path: Path, mode: ExtendMode) -> None:
    frames = await reader(write_video(tmp_path / "a.mp4", moving_square(5)))
    with pytest.raises(AvatarError):
        async for _ in repeat(frames, 9, 30, mode):
            pass


def video(frame_count: int, width: int = 160, height: int = 120) -> Video:
    """A video as its file claims it to be."""
    return Video(
        Path("unused"),
        (width, height),
        FrameTransform(width, height, Options()),
        Fraction(25),
        frame_count,
        LIMITS.max_pixels,
    )


@pytest.mark.parametrize(
    ("frame_count", "total", "added", "kept"),
    [
        (3, 9, 3, 3),  # repeated
        (9, 9, 9, 0),  # shown once
        (9, 5, 5, 0),  # cut
        (5, 9, 5, 0),  # too large
        (3, 9, 5, 0),  # too large, though the file claims fewer
    ],
)
def test_frames_are_kept_only_if_they_are_repeated_and_few(
    monkeypatch: pytest.MonkeyPatch, frame_count: int, total: int, added: int, kept: int
) -> None:
    monkeypatch.setattr(playback, "KEPT_BYTES", 4 * FRAME_BYTES)
    frames = KeptFrames(video(frame_count), total)
    for image in moving_square(added):
        frames.add(image)
    assert len(frames.images) == kept
