"""Videos as they are found in practice: without times, cut without encoding, changing size, untagged, transparent."""

import logging
from contextlib import aclosing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avatar.limits import LIMITS
from avatar.media.decoding import read_frames
from avatar.media.playback import KeptFrames
from avatar.media.video import Video
from avatar.options import DEFAULTS, Options
from avatar.testing import FakeInference
from avatar.timing import StageTimer
from tests.support.faces import locate, source_indices
from tests.support.media import (
    Frames,
    ffmpeg,
    file_of,
    find_square,
    moving_square,
    probe_video,
    read_video,
    request,
    run,
    tone,
    write_video,
    write_wav,
)

LOG = logging.getLogger("test")
B_FRAMES = ["-bf", "2", "-pix_fmt", "yuv420p"]
X264 = ["-c:v", "libx264", "-preset", "veryfast", "-qp", "1", *B_FRAMES]
MPEG2 = ["-c:v", "mpeg2video", "-q:v", "2", *B_FRAMES]
MPEG4 = ["-c:v", "mpeg4", "-q:v", "2", *B_FRAMES]
VP8 = ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8"]
VP9 = ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"]
# the containers that docs/guide/media.md names, with codecs that reorder frames where they can hold one
CONTAINERS = {
    "xvid.avi": [*MPEG4, "-vtag", "XVID"],
    "h264.avi": X264,
    "mjpeg.avi": ["-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p"],
    "a.mp4": X264,
    "a.mov": X264,
    "a.m4v": [*MPEG4, "-f", "mp4"],
    "a.3gp": [*MPEG4],
    "a.mkv": X264,
    "a.webm": VP9,
    "a.mpg": [*MPEG2, "-f", "mpeg"],
    "a.vob": [*MPEG2, "-f", "vob"],
    "a.ts": X264,
    "mpeg2.ts": MPEG2,
    "a.flv": X264,
    "a.wmv": ["-c:v", "wmv2", "-q:v", "2", "-pix_fmt", "yuv420p"],
    "a.asf": [*MPEG4, "-f", "asf"],
    "a.mxf": MPEG2,
    "a.ogv": ["-c:v", "libtheora", "-q:v", "9", "-pix_fmt", "yuv420p"],
    "a.ivf": VP8,
    "a.h264": X264,
    "a.hevc": ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=0", "-pix_fmt", "yuv420p"],
    "a.m2v": [*MPEG2, "-f", "mpeg2video"],
    "a.mjpeg": ["-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p"],
    "a.gif": [],
}
# one of each way in which times can be missing; the other containers are tested by `make test-long`
QUICK = {"xvid.avi", "h264.avi", "a.mp4", "a.mkv", "a.mpg", "a.ts", "a.h264", "a.gif"}
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CONTAINERS]
RED, GREEN = (209, 52, 52), (0, 199, 0)


async def probe(path: Path) -> Video:
    return await probe_video(path, DEFAULTS, LIMITS)


async def decoded(video: Video, *, first: int = 0, step: int = 1) -> Frames:
    async with aclosing(read_frames(video, 8, StageTimer(), LOG, first=first, max_frames=10_000, step=step)) as chunks:
        return np.concatenate([frames async for frames in chunks])


def centers(frames: Frames) -> list[float]:
    """Return where the white square is, from left to right, in pixels."""
    boxes = [find_square(frame) for frame in frames]
    return [(box[0] + box[2]) / 2 for box in boxes if box]


@pytest.mark.parametrize("name", NAMES)
async def test_the_frames_of_every_container_are_counted_and_kept(tmp_path: Path, name: str) -> None:
    codec = CONTAINERS[name]
    raw = ["-f", "rawvideo", "-pixel_format", "bgr24", "-video_size", "160x120", "-framerate", "25"]
    ffmpeg(*raw, "-i", "pipe:0", *codec, "-y", str(tmp_path / name), data=moving_square(40).tobytes())
    video = await probe(tmp_path / name)
    assert (video.frame_count, video.fps, video.filters) == (40, 25, ())
    frames = await decoded(video)
    np.testing.assert_allclose(centers(frames), centers(moving_square(40)), atol=3)
    kept = KeptFrames(video, 100)
    for frame in frames:
        kept.add(frame)
    assert len(kept.images) == 40  # a loop is not decoded again


async def test_an_avi_without_presentation_times_is_looped_and_located_like_any_other(tmp_path: Path) -> None:
    source = moving_square(20)
    path = write_video(tmp_path / "a.avi", source, extra=[*MPEG4, "-vtag", "XVID"])
    frames = await locate(path, 50, DEFAULTS)
    order = source_indices([frame.image for frame in frames], await decoded(await probe(path)))
    assert order == [n % 20 for n in range(50)]


async def test_only_frames_that_an_edit_list_shows_are_counted(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", moving_square(100, 400), extra=X264)
    ffmpeg("-ss", "1.3", "-i", str(tmp_path / "clip.mp4"), "-t", "2", "-c", "copy", "-y", str(tmp_path / "cut.mp4"))
    video = await probe(tmp_path / "cut.mp4")
    frames = await decoded(video)
    assert video.frame_count == len(frames)
    assert 50 <= len(frames) <= 53
    assert abs(centers(frames)[0] - centers(moving_square(100, 400))[33]) <= 4


def changing_size(folder: Path, *, pause: bool = False) -> Path:
    """Write a video of 50 frames of 320×240 and 50 of 160×120; with `pause`, a second passes between them."""
    parts = []
    for name, size in (("large", (320, 240)), ("small", (160, 120))):
        parts.append(write_video(folder / f"{name}.ts", moving_square(50, *size), extra=X264))
    between = "\nduration 3" if pause else ""
    (folder / "list.txt").write_text(f"file large.ts{between}\nfile small.ts\n")
    ffmpeg("-f", "concat", "-i", str(folder / "list.txt"), "-c", "copy", "-y", str(folder / "a.mkv"))
    return folder / "a.mkv"


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return changing_size(tmp_path_factory.mktemp("changing"))


async def test_frames_of_another_size_on_the_way_get_the_size_of_the_first(changing: Path) -> None:
    video = await probe(changing)
    assert (video.width, video.height) == (320, 240)
    whole = await decoded(video)
    assert len(whole) == video.frame_count == 100
    after = centers(whole[50:])
    np.testing.assert_allclose(after, [2 * x for x in centers(moving_square(50))], atol=6)


async def test_frames_after_a_change_of_size_are_decoded_from_any_index_and_with_any_step(changing: Path) -> None:
    video = await probe(changing)
    whole = await decoded(video)
    np.testing.assert_array_equal(await decoded(video, first=60), whole[60:])
    np.testing.assert_array_equal(await decoded(video, first=3, step=7), whole[3::7])


@pytest.mark.parametrize("length", ["loop", "bounce", "hold"])
async def test_a_video_of_changing_size_is_shown_for_longer_than_it_lasts(changing: Path, length: str) -> None:
    options = replace(DEFAULTS, extend=type(DEFAULTS.extend)(length))
    assert len(await locate(changing, 230, options)) == 230


async def test_a_pause_before_a_change_of_size_stays(tmp_path: Path) -> None:
    video = await probe(changing_size(tmp_path, pause=True))
    frames = await decoded(video)
    assert video.fps == 25
    assert abs(len(frames) - 125) <= 2
    assert abs(video.frame_count - len(frames)) <= 1


def flat(color: tuple[int, int, int], width: int, height: int) -> Frames:
    return np.full((3, height, width, 3), color[::-1], np.uint8)


@pytest.mark.parametrize("color", [RED, pytest.param(GREEN, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("width", "height", "matrix"),
    [(1280, 720, "bt709"), (1280, 528, "bt709"), (640, 720, "bt709"), (640, 480, "bt601")],
)
async def test_colors_of_an_untagged_video_are_those_that_players_show(
    tmp_path: Path, color: tuple[int, int, int], width: int, height: int, matrix: str
) -> None:
    convert = ["-vf", f"scale=out_color_matrix={matrix}:flags=accurate_rnd,format=yuv420p", "-c:v", "libx264"]
    untagged = "h264_metadata=matrix_coefficients=2:colour_primaries=2:transfer_characteristics=2"
    tags = ["-preset", "ultrafast", "-qp", "2", "-pix_fmt", "yuv420p", "-bsf:v", untagged]
    path = write_video(tmp_path / "a.mp4", flat(color, width, height), extra=[*convert, *tags])
    frames = await decoded(await probe(path))
    assert np.abs(frames.astype(int) - np.array(color[::-1])).max() <= 3


async def test_the_result_of_an_untagged_hd_video_has_its_colors(tmp_path: Path) -> None:
    convert = ["-vf", "scale=out_color_matrix=bt709:flags=accurate_rnd,format=yuv420p", "-c:v", "libx264"]
    path = write_video(tmp_path / "a.mp4", flat(RED, 1280, 720), extra=[*convert, "-qp", "2", "-pix_fmt", "yuv420p"])
    speech = write_wav(tmp_path / "speech.wav", tone(0.2))
    job = replace(request(tmp_path, path, speech, still=False), options=Options(box=(600, 700, 10, 110)))
    frames = read_video(file_of(await run(job, FakeInference())))
    assert np.abs(np.median(frames[:, :500], axis=(0, 1, 2)) - RED[::-1]).max() <= 3


async def test_the_matrix_that_a_file_names_is_used_whatever_its_size(tmp_path: Path) -> None:
    for name, tag, size in (("bt601", "smpte170m", (1280, 720)), ("bt709", "bt709", (320, 240))):
        convert = ["-vf", f"scale=out_color_matrix={name}:flags=accurate_rnd,format=yuv420p", "-colorspace", tag]
        codec = ["-c:v", "libx264", "-preset", "ultrafast", "-qp", "2", "-pix_fmt", "yuv420p"]
        path = write_video(tmp_path / f"{name}.mp4", flat(RED, *size), extra=[*convert, *codec])
        frames = await decoded(await probe(path))
        assert np.abs(frames.astype(int) - np.array(RED[::-1])).max() <= 3


def half_transparent(path: Path, codec: list[str]) -> Path:
    """Write a video whose left half is opaque red and whose right half is transparent black."""
    frames = np.zeros((10, 120, 160, 4), np.uint8)
    frames[:, :, :80] = (*RED[::-1], 255)
    raw = ["-f", "rawvideo", "-pixel_format", "bgra", "-video_size", "160x120", "-framerate", "25"]
    ffmpeg(*raw, "-i", "pipe:0", *codec, "-y", str(path), data=frames.tobytes())
    return path


ALPHA = {
    "a.webm": [*VP9, "-pix_fmt", "yuva420p", "-auto-alt-ref", "0"],
    "vp8.webm": [*VP8, "-pix_fmt", "yuva420p", "-auto-alt-ref", "0"],
    "prores.mov": ["-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le"],
    "animation.mov": ["-c:v", "qtrle", "-pix_fmt", "argb"],
    "a.gif": ["-filter_complex", "split[a][b];[a]palettegen=reserve_transparent=1[p];[b][p]paletteuse"],
}
# alpha in a track of its own, in the pixels, and in the palette; the others hold it as one of these
ALPHA_NAMES = [
    *("a.webm", "prores.mov", "a.gif"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("vp8.webm", "animation.mov")),
]


@pytest.mark.parametrize("name", ALPHA_NAMES)
async def test_a_video_with_alpha_is_laid_over_a_color(tmp_path: Path, name: str) -> None:
    video = await probe(half_transparent(tmp_path / name, ALPHA[name]))
    assert video.has_alpha
    for color in ((255, 255, 255), (0, 128, 255)):
        frames = await decoded(replace(video, matte=color))
        assert len(frames) == 10
        assert np.abs(frames[:, :, 90:].astype(int) - np.array(color[::-1])).max() <= 2
        assert np.abs(frames[:, :, :70].astype(int) - np.array(RED[::-1])).max() <= 12


@pytest.mark.parametrize("name", ALPHA_NAMES)
async def test_the_alpha_channel_of_a_video_can_be_read_alone(tmp_path: Path, name: str) -> None:
    video = await probe(half_transparent(tmp_path / name, ALPHA[name]))
    alpha = await decoded(replace(video, only_alpha=True))
    assert alpha.shape == (10, 120, 160)
    assert alpha[:, :, :70].min() >= 250
    assert alpha[:, :, 90:].max() <= 5


async def test_an_opaque_video_has_no_alpha(tmp_path: Path) -> None:
    assert not (await probe(write_video(tmp_path / "a.webm", moving_square(3), extra=VP9))).has_alpha
    assert (await probe(write_video(tmp_path / "a.mp4", moving_square(3)))).fps == Fraction(25)
