from collections.abc import Callable
from contextlib import aclosing
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from avatar.context import JobContext, RequestLogger
from avatar.errors import InvalidField
from avatar.limits import LIMITS, Limits
from avatar.media import ffmpeg_args
from avatar.media import video as videos
from avatar.media.video import Video, is_even, read_frames
from avatar.options import DEFAULTS, Options
from avatar.testing import FakeModels
from tests.support.media import (
    Frames,
    ffmpeg,
    find_square,
    frame_rate,
    moving_square,
    read_video,
    tone,
    write_video,
    write_wav,
)


def job(options: Options = DEFAULTS, limits: Limits = LIMITS) -> JobContext:
    return JobContext(FakeModels(), RequestLogger("test"), options, limits)


async def look(path: Path, options: Options = DEFAULTS, limits: Limits = LIMITS) -> Video:
    return await videos.look(path, job(options, limits))


async def decoded(film: Video, piece: int = 4, *, first: int = 0, most: int = 10_000, step: int = 1) -> list[Frames]:
    async with aclosing(read_frames(film, piece, job(), first=first, most=most, step=step)) as pieces:
        return [frames async for frames in pieces]


async def refused(path: Path) -> str:
    with pytest.raises(InvalidField) as error:
        await look(path)
    assert error.value.field == "face_file"
    return error.value.reason


@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv", "webm", "avi"])
@pytest.mark.parametrize("fps", ["24000/1001", "25", "30000/1001", "12.5", "60000/1001"])
async def test_size_and_frame_rate_are_those_that_the_original_saw(tmp_path: Path, kind: str, fps: str) -> None:
    path = tmp_path / f"a.{kind}"
    codec = ["-c:v", "libvpx", "-deadline", "realtime"] if kind == "webm" else []
    write_video(path, moving_square(20), fps, codec)
    video = await look(path)
    assert (video.width, video.height) == (160, 120)
    assert float(video.fps) == frame_rate(path)


async def test_the_rates_of_television_are_exact(tmp_path: Path) -> None:
    for fps in ("24000/1001", "30000/1001", "60000/1001"):
        assert (await look(write_video(tmp_path / "a.mp4", moving_square(5), fps))).fps == Fraction(fps)


async def test_frames_are_those_that_the_original_saw(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(11), extra=["-pix_fmt", "yuv420p", "-qp", "23"])
    pieces = await decoded(await look(path))
    assert [len(piece) for piece in pieces] == [4, 4, 3]
    np.testing.assert_array_equal(np.concatenate(pieces), read_video(path))


VP8 = ["-c:v", "libvpx", "-deadline", "realtime"]
UNEVEN = ["-fps_mode", "passthrough", "-vf"]


def centre(frame: Frames) -> float:
    box = find_square(frame)
    assert box
    return (box[0] + box[2]) / 2


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
async def test_frames_of_an_uneven_clock_are_shown_at_their_time(tmp_path: Path, kind: str) -> None:
    # the frames of every other second come at half the rate; the square moves on with the clock
    frames = moving_square(100, 400, 120)
    uneven = [*UNEVEN, r"select='lt(mod(n\,50)\,25)+not(mod(n\,2))'"]
    path = write_video(tmp_path / f"a.{kind}", frames, extra=uneven)
    video = await look(path)
    even = np.concatenate(await decoded(video))
    assert video.fps == 25
    assert abs(len(even) - 100) <= 1
    assert abs(video.count - 100) <= 1
    for n in range(0, len(even), 7):
        assert abs(centre(even[n]) - centre(frames[min(n, 99)])) <= 4  # two frames


async def test_an_even_clock_that_is_not_quite_even_leaves_the_frames_alone(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.webm", moving_square(40), "30000/1001", ["-c:v", "libvpx", "-deadline", "realtime"]
    )
    video = await look(path)  # its clock counts milliseconds
    assert not video.filters
    assert sum(map(len, await decoded(video))) == 40


def test_an_even_clock_is_within_half_a_frame() -> None:
    ticks = [Fraction(n, 25) for n in range(250)]
    assert is_even(ticks, Fraction(25))
    assert is_even([tick + Fraction(n % 3, 250) for n, tick in enumerate(ticks)], Fraction(25))
    assert not is_even([tick * Fraction(1003, 1000) for tick in ticks], Fraction(25))  # drifts
    assert not is_even([*ticks[:100], *ticks[101:]], Fraction(25))  # a gap


async def test_a_clock_finer_than_anyone_uses_becomes_a_usual_one(tmp_path: Path) -> None:
    jitter = [*UNEVEN, r"setpts='(N/29+0.004*mod(N*7\,5))/TB'", *VP8]
    video = await look(write_video(tmp_path / "a.webm", moving_square(60), "1000", jitter))
    assert video.fps in videos.USUAL
    assert abs(video.count / video.fps - 60 / 29) < 0.1


async def test_frames_can_be_read_from_the_middle(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(30))
    whole = read_video(path)
    some = await decoded(await look(path), first=7, most=6)
    np.testing.assert_array_equal(np.concatenate(some), whole[7:13])
    sampled = await decoded(await look(path), most=3, step=10)
    np.testing.assert_array_equal(np.concatenate(sampled), whole[::10])


async def test_fields_are_woven_into_whole_frames(tmp_path: Path) -> None:
    # the square is 12 pixels further in every second row
    bars = np.zeros((20, 96, 128, 3), np.uint8)
    for n, frame in enumerate(bars):
        frame[::2, 4 + 4 * n : 34 + 4 * n] = frame[1::2, 16 + 4 * n : 46 + 4 * n] = 255
    interlaced = ["-flags", "+ildct+ilme", "-x264opts", "tff=1", "-vf", "setfield=tff"]
    video = await look(write_video(tmp_path / "a.mp4", bars, extra=[*interlaced, "-pix_fmt", "yuv420p"]))
    frames = np.concatenate(await decoded(video))
    assert len(frames) == 20
    combs = [np.abs(np.diff(some[10].astype(int), axis=0)).mean() for some in (bars, frames)]
    assert combs[1] < combs[0] / 3


async def test_a_progressive_video_is_not_touched_by_the_deinterlacer(tmp_path: Path) -> None:
    assert not (await look(write_video(tmp_path / "a.mp4", moving_square(5)))).filters


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
async def test_hdr_becomes_sdr(tmp_path: Path, transfer: str) -> None:
    gray = np.full((3, 64, 96, 3), 128, np.uint8)
    tags = f"setparams=color_trc={transfer}:color_primaries=bt2020:colorspace=bt2020nc:range=tv"
    ten = ["-vf", f"format=yuv420p10le,{tags}", "-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-qp", "5"]
    path = write_video(tmp_path / "a.mp4", gray, extra=[*ten, "-x265-params", "log-level=0"])
    video = await look(path)
    assert video.filters == (ffmpeg_args.TO_SDR,)
    (frames,) = await decoded(video)
    assert frames.shape == (3, 64, 96, 3)
    assert np.ptp(frames.mean(axis=(0, 1, 2))) < 6  # gray stays gray
    assert 20 < frames.mean() < 235


async def test_ten_bits_become_eight(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(4), extra=["-pix_fmt", "yuv444p10le"])
    frames = np.concatenate(await decoded(await look(path)))
    assert np.abs(frames.astype(int) - moving_square(4)).mean() < 2


async def test_frames_larger_than_is_worked_on_are_scaled_down(tmp_path: Path) -> None:
    video = await look(write_video(tmp_path / "a.mp4", moving_square(3, 400, 300)), limits=Limits(max_work_pixels=30_000))
    assert (video.width, video.height) == (200, 150)
    (frames,) = await decoded(video)
    assert frames.shape == (3, 150, 200, 3)
    assert np.abs(frames[0].astype(int) - moving_square(1, 400, 300)[0, ::2, ::2]).mean() < 4


async def test_pixels_that_are_not_square_are_remembered(tmp_path: Path) -> None:
    assert (await look(write_video(tmp_path / "a.mp4", moving_square(3), extra=["-vf", "setsar=4/3"]))).aspect == "4:3"
    assert (await look(write_video(tmp_path / "b.mp4", moving_square(3)))).aspect == ""


async def test_the_original_tools_options_cut_and_turn(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(3))
    whole = read_video(path)
    for options, wanted in (
        (Options(rotate=True), np.rot90(whole, -1, axes=(1, 2))),
        (Options(crop=(10, 100, 5, -1)), whole[:, 10:100, 5:]),
        (Options(rotate=True, crop=(10, 100, 5, 500)), np.rot90(whole, -1, axes=(1, 2))[:, 10:100, 5:]),
        (Options(resize_factor=2), np.stack([cv2.resize(frame, (80, 60)) for frame in whole])),
    ):
        video = await look(path, options)
        assert (video.width, video.height) == (wanted.shape[2], wanted.shape[1])
        np.testing.assert_array_equal(np.concatenate(await decoded(video)), wanted)


async def test_a_bound_on_the_height_keeps_the_proportions(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(3, 320, 240))
    video = await look(path, Options(max_height=120))
    assert (video.width, video.height) == (160, 120)
    assert np.concatenate(await decoded(video)).shape == (3, 120, 160, 3)
    assert (await look(path, Options(max_height=1000))).height == 240


async def test_no_more_frames_are_decoded_than_asked_for(tmp_path: Path) -> None:
    video = await look(write_video(tmp_path / "a.mp4", moving_square(12)))
    assert [len(piece) for piece in await decoded(video, most=6)] == [4, 2]


async def test_a_video_taken_sideways_is_turned_upright(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving_square(3))
    ffmpeg("-display_rotation", "90", "-i", str(tmp_path / "a.mp4"), "-c", "copy", str(tmp_path / "turned.mp4"))
    video = await look(tmp_path / "turned.mp4")
    assert (video.width, video.height) == (120, 160)
    lying = read_video(tmp_path / "a.mp4")
    np.testing.assert_array_equal(np.concatenate(await decoded(video)), np.rot90(lying, axes=(1, 2)))


async def test_a_picture_sent_as_a_video_is_a_video_of_one_frame(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), moving_square(1)[0])
    (tmp_path / "a.jpg").rename(tmp_path / "a.mp4")
    video = await look(tmp_path / "a.mp4")
    assert video.fps == 25
    assert [len(piece) for piece in await decoded(video)] == [1]


async def test_a_video_that_breaks_off_gives_what_comes_before(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", moving_square(50))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = np.concatenate(await decoded(await look(path)))
    assert 5 < len(frames) < 45
    np.testing.assert_array_equal(frames[:5], read_video(path)[:5])


def _truncated(path: Path) -> None:
    write_video(path.with_suffix(".mp4"), moving_square(10)).rename(path)
    path.write_bytes(path.read_bytes()[:-800])  # the index stands at the end


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
async def test_what_is_no_video_is_refused(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    make(tmp_path / "face")
    assert reason in await refused(tmp_path / "face")
