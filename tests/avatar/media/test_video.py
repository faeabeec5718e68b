import logging
from collections.abc import Callable
from contextlib import aclosing
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from avatar.errors import InvalidField
from avatar.limits import LIMITS, Limits
from avatar.media import ffmpeg_args
from avatar.media.decoding import read_frames
from avatar.media.probe import STANDARD_RATES, is_constant_rate
from avatar.media.video import Video
from avatar.options import DEFAULTS, Options
from avatar.timing import StageTimer
from tests.support.media import (
    Frames,
    ffmpeg,
    find_square,
    frame_rate,
    moving_square,
    probe_video,
    read_video,
    tone,
    write_video,
    write_wav,
)

LOG = logging.getLogger("test")


async def probe(path: Path, options: Options = DEFAULTS, limits: Limits = LIMITS) -> Video:
    return await probe_video(path, options, limits)


async def decoded(video: Video, *, first: int = 0, max_frames: int = 10_000, step: int = 1) -> list[Frames]:
    chunks = read_frames(video, 4, StageTimer(), LOG, first=first, max_frames=max_frames, step=step)
    async with aclosing(chunks):
        return [frames async for frames in chunks]


async def rejected(path: Path) -> str:
    with pytest.raises(InvalidField) as error:
        await probe(path)
    assert error.value.field == "face_file"
    return error.value.reason


KINDS = ["mp4", "mov", "mkv", "webm", "avi"]
FRAME_RATES = ["24000/1001", "25", "30000/1001", "12.5", "60000/1001"]
# every container at one rate, every rate in one container
QUICK = {*((kind, "30000/1001") for kind in KINDS), *(("mp4", fps) for fps in FRAME_RATES)}


@pytest.mark.parametrize(
    ("kind", "fps"),
    [
        pytest.param(kind, fps, marks=() if (kind, fps) in QUICK else pytest.mark.slow)
        for kind in KINDS
        for fps in FRAME_RATES
    ],
)
async def test_size_and_frame_rate_are_those_that_opencv_reads(tmp_path: Path, kind: str, fps: str) -> None:
    path = tmp_path / f"a.{kind}"
    codec = ["-c:v", "libvpx", "-deadline", "realtime"] if kind == "webm" else []
    write_video(path, moving_square(20), fps, codec)
    video = await probe(path)
    assert (video.width, video.height) == (160, 120)
    assert float(video.fps) == frame_rate(path)


async def test_television_rates_are_exact(tmp_path: Path) -> None:
    for fps in ("24000/1001", "30000/1001", "60000/1001"):
        assert (await probe(write_video(tmp_path / "a.mp4", moving_square(5), fps))).fps == Fraction(fps)


async def test_frames_are_those_that_opencv_decodes(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(11), extra=["-pix_fmt", "yuv420p", "-qp", "23"])
    chunks = await decoded(await probe(path))
    assert [len(chunk) for chunk in chunks] == [4, 4, 3]
    np.testing.assert_array_equal(np.concatenate(chunks), read_video(path))


VP8 = ["-c:v", "libvpx", "-deadline", "realtime"]
VARIABLE_RATE = ["-fps_mode", "passthrough", "-vf"]


def center(frame: Frames) -> float:
    box = find_square(frame)
    assert box
    return (box[0] + box[2]) / 2


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
async def test_frames_of_a_variable_rate_video_are_shown_at_their_time(tmp_path: Path, kind: str) -> None:
    # every other second has half the frame rate; the square moves at a constant speed
    frames = moving_square(100, 400, 120)
    variable = [*VARIABLE_RATE, r"select='lt(mod(n\,50)\,25)+not(mod(n\,2))'"]
    path = write_video(tmp_path / f"a.{kind}", frames, extra=variable)
    video = await probe(path)
    constant = np.concatenate(await decoded(video))
    assert video.fps == 25
    assert abs(len(constant) - 100) <= 1
    assert abs(video.frame_count - 100) <= 1
    for n in range(0, len(constant), 7):
        assert abs(center(constant[n]) - center(frames[min(n, 99)])) <= 4  # two frames


async def test_jitter_below_half_a_frame_leaves_the_frames_unchanged(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.webm", moving_square(40), "30000/1001", ["-c:v", "libvpx", "-deadline", "realtime"]
    )
    video = await probe(path)  # its timestamps are in milliseconds
    assert not video.filters
    assert sum(map(len, await decoded(video))) == 40


def test_a_constant_rate_deviates_by_less_than_half_a_frame() -> None:
    ticks = [Fraction(n, 25) for n in range(250)]
    assert is_constant_rate(ticks, Fraction(25))
    assert is_constant_rate([tick + Fraction(n % 3, 250) for n, tick in enumerate(ticks)], Fraction(25))
    assert not is_constant_rate([tick * Fraction(1003, 1000) for tick in ticks], Fraction(25))  # drifts
    assert not is_constant_rate([*ticks[:100], *ticks[101:]], Fraction(25))  # a gap


async def test_a_claimed_rate_above_all_standard_rates_becomes_a_standard_rate(tmp_path: Path) -> None:
    jitter = [*VARIABLE_RATE, r"setpts='(N/29+0.004*mod(N*7\,5))/TB'", *VP8]
    video = await probe(write_video(tmp_path / "a.webm", moving_square(60), "1000", jitter))
    assert video.fps in STANDARD_RATES
    assert abs(video.frame_count / video.fps - 60 / 29) < 0.1


async def test_frames_are_decoded_from_any_index_and_with_any_step(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(30))
    whole = read_video(path)
    some = await decoded(await probe(path), first=7, max_frames=6)
    np.testing.assert_array_equal(np.concatenate(some), whole[7:13])
    sampled = await decoded(await probe(path), max_frames=3, step=10)
    np.testing.assert_array_equal(np.concatenate(sampled), whole[::10])


async def test_interlaced_fields_are_combined(tmp_path: Path) -> None:
    # the square is 12 pixels further in every second row
    bars = np.zeros((20, 96, 128, 3), np.uint8)
    for n, frame in enumerate(bars):
        frame[::2, 4 + 4 * n : 34 + 4 * n] = frame[1::2, 16 + 4 * n : 46 + 4 * n] = 255
    interlaced = ["-flags", "+ildct+ilme", "-x264opts", "tff=1", "-vf", "setfield=tff"]
    video = await probe(write_video(tmp_path / "a.mp4", bars, extra=[*interlaced, "-pix_fmt", "yuv420p"]))
    frames = np.concatenate(await decoded(video))
    assert len(frames) == 20
    combs = [np.abs(np.diff(some[10].astype(int), axis=0)).mean() for some in (bars, frames)]
    assert combs[1] < combs[0] / 3


async def test_a_progressive_video_is_not_deinterlaced(tmp_path: Path) -> None:
    assert not (await probe(write_video(tmp_path / "a.mp4", moving_square(5)))).filters


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
async def test_hdr_becomes_sdr(tmp_path: Path, transfer: str) -> None:
    gray = np.full((3, 64, 96, 3), 128, np.uint8)
    tags = f"setparams=color_trc={transfer}:color_primaries=bt2020:colorspace=bt2020nc:range=tv"
    ten = ["-vf", f"format=yuv420p10le,{tags}", "-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-qp", "5"]
    path = write_video(tmp_path / "a.mp4", gray, extra=[*ten, "-x265-params", "log-level=0"])
    video = await probe(path)
    assert video.filters == (ffmpeg_args.TO_SDR,)
    (frames,) = await decoded(video)
    assert frames.shape == (3, 64, 96, 3)
    assert np.ptp(frames.mean(axis=(0, 1, 2))) < 6  # gray stays gray
    assert 20 < frames.mean() < 235


async def test_ten_bits_become_eight(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(4), extra=["-pix_fmt", "yuv444p10le"])
    frames = np.concatenate(await decoded(await probe(path)))
    assert np.abs(frames.astype(int) - moving_square(4)).mean() < 2


async def test_frames_over_the_working_size_are_scaled_down(tmp_path: Path) -> None:
    video = await probe(
        write_video(tmp_path / "a.mp4", moving_square(3, 400, 300)), limits=Limits(max_work_pixels=30_000)
    )
    assert (video.width, video.height) == (200, 150)
    (frames,) = await decoded(video)
    assert frames.shape == (3, 150, 200, 3)
    assert np.abs(frames[0].astype(int) - moving_square(1, 400, 300)[0, ::2, ::2]).mean() < 4


async def test_the_aspect_of_pixels_that_are_not_square_is_kept(tmp_path: Path) -> None:
    assert (await probe(write_video(tmp_path / "a.mp4", moving_square(3), extra=["-vf", "setsar=4/3"]))).aspect == "4:3"
    assert (await probe(write_video(tmp_path / "b.mp4", moving_square(3)))).aspect == ""


async def test_frames_are_resized_rotated_and_cropped_as_by_the_original_tool(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(3))
    whole = read_video(path)
    for options, expected in (
        (Options(rotate=True), np.rot90(whole, -1, axes=(1, 2))),
        (Options(crop=(10, 100, 5, -1)), whole[:, 10:100, 5:]),
        (Options(rotate=True, crop=(10, 100, 5, 500)), np.rot90(whole, -1, axes=(1, 2))[:, 10:100, 5:]),
        (Options(resize_factor=2), np.stack([cv2.resize(frame, (80, 60)) for frame in whole])),
    ):
        video = await probe(path, options)
        assert (video.width, video.height) == (expected.shape[2], expected.shape[1])
        np.testing.assert_array_equal(np.concatenate(await decoded(video)), expected)


async def test_a_maximum_height_keeps_the_proportions(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(3, 320, 240))
    video = await probe(path, Options(max_height=120))
    assert (video.width, video.height) == (160, 120)
    assert np.concatenate(await decoded(video)).shape == (3, 120, 160, 3)
    assert (await probe(path, Options(max_height=1000))).height == 240


async def test_at_most_the_requested_frames_are_decoded(tmp_path: Path) -> None:
    video = await probe(write_video(tmp_path / "a.mp4", moving_square(12)))
    assert [len(chunk) for chunk in await decoded(video, max_frames=6)] == [4, 2]


async def test_a_video_recorded_sideways_is_turned_upright(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving_square(3))
    ffmpeg("-display_rotation", "90", "-i", str(tmp_path / "a.mp4"), "-c", "copy", str(tmp_path / "turned.mp4"))
    video = await probe(tmp_path / "turned.mp4")
    assert (video.width, video.height) == (120, 160)
    sideways = read_video(tmp_path / "a.mp4")
    np.testing.assert_array_equal(np.concatenate(await decoded(video)), np.rot90(sideways, axes=(1, 2)))


async def test_an_image_sent_as_a_video_is_a_video_of_one_frame(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), moving_square(1)[0])
    (tmp_path / "a.jpg").rename(tmp_path / "a.mp4")
    video = await probe(tmp_path / "a.mp4")
    assert video.fps == 25
    assert [len(chunk) for chunk in await decoded(video)] == [1]


async def test_a_truncated_video_yields_the_frames_before_the_damage(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", moving_square(50))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = np.concatenate(await decoded(await probe(path)))
    assert 5 < len(frames) < 45
    np.testing.assert_array_equal(frames[:5], read_video(path)[:5])


def _truncated(path: Path) -> None:
    write_video(path.with_suffix(".mp4"), moving_square(10)).rename(path)
    path.write_bytes(path.read_bytes()[:-800])  # the index is at the end


def _without_frames(path: Path) -> None:
    source = write_video(path.with_suffix(".mp4"), moving_square(2))
    ffmpeg("-i", str(source), "-c", "copy", "-frames:v", "0", "-f", "mp4", "-y", str(path))


def _only_sound(path: Path) -> None:
    wav = write_wav(path.with_suffix(".wav"), tone(0.5))
    ffmpeg("-i", str(wav), "-f", "mp4", str(path))


def _cover_art(path: Path) -> None:
    cv2.imwrite(str(path.with_suffix(".png")), moving_square(1)[0])
    wav = write_wav(path.with_suffix(".wav"), tone(0.5))
    cover = ["-map", "0", "-map", "1", "-disposition:v", "attached_pic", "-c:v", "copy", "-f", "mp4"]
    ffmpeg("-i", str(wav), "-i", str(path.with_suffix(".png")), *cover, str(path))


def _playlist(path: Path) -> None:
    video = write_video(path.with_name("secret.mp4"), moving_square(5))
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{video.as_uri()}\n#EXT-X-ENDLIST\n")


def _concat(path: Path) -> None:
    write_video(path.with_name("secret.mp4"), moving_square(5))
    path.write_text("ffconcat version 1.0\nfile secret.mp4\n")


def _wide(path: Path) -> None:
    wide = np.zeros((1, 16, 16_400, 3), np.uint8)
    write_video(path.with_suffix(".mkv"), wide, extra=["-c:v", "ffv1"]).rename(path)


def _bomb(path: Path) -> None:
    Image.new("1", (11_000, 10_000)).save(path, "PNG")


def _svg(path: Path) -> None:
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>')


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_text("Hello, world!\n" * 100), "not a video"),
        (lambda path: path.write_bytes(np.random.RandomState(0).bytes(5000)), "not a video"),
        (_truncated, "not a video"),
        (_without_frames, "without frames"),
        (_only_sound, "without frames"),
        (_cover_art, "without frames"),
        (_playlist, "not a video"),
        (_concat, "not a video"),
        (_svg, "not a video"),
        (lambda path: write_video(path.with_suffix(".mp4"), moving_square(5), "300").rename(path), "frame rate"),
        (_wide, "too large"),
        (_bomb, "too large"),
    ],
    ids=[
        *("empty", "text", "noise", "truncated", "no frames", "only sound", "cover art"),
        *("playlist", "concat", "svg", "300 fps", "16400 pixels wide", "110 megapixels"),
    ],
)
async def test_an_invalid_video_is_rejected(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    make(tmp_path / "face")
    assert reason in await rejected(tmp_path / "face")
