from collections.abc import Callable
from contextlib import aclosing
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from avatar_media import Frames, ffmpeg, frame_rate, moving_square, read_video, tone, write_video, write_wav
from PIL import Image

from avatar.errors import InvalidField
from avatar.job import Job, RequestLog
from avatar.testing import FakeModels
from avatar.video import Video, look, read_frames


async def decoded(video: Video, most: int = 10_000, piece: int = 4) -> list[Frames]:
    async with aclosing(read_frames(video, most, piece, Job(FakeModels(), RequestLog("test")))) as pieces:
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


async def test_frames_of_an_uneven_clock_come_once_each(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", moving_square(12), extra=["-vf", "setpts=N*N/25/TB", "-fps_mode", "vfr"])
    np.testing.assert_array_equal(np.concatenate(await decoded(await look(path))), read_video(path))


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
    Image.new("1", (9000, 9000)).save(path, "PNG")


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
        *("playlist", "concat", "svg", "300 fps", "16400 pixels wide", "81 megapixels"),
    ],
)
async def test_what_is_no_video_is_refused(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    make(tmp_path / "face")
    assert reason in await refused(tmp_path / "face")
