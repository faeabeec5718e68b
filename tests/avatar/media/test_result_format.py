"""A result looks to players as it did when ffmpeg converted its frames: tags, range, profile, pixel format, shape."""

import re
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from avatar.media import ffmpeg as process
from avatar.media.encoder import VideoEncoder
from avatar.media.ffmpeg_args import COLOR_TAGS, AudioInput, VideoFormat, encode_args
from avatar.options import Quality
from avatar.timing import StageTimer
from lipsync.yuv import to_yuv420
from tests.support.media import Frames, ffmpeg, tone, write_wav

WIDTH, HEIGHT, COUNT = 640, 480, 6
# The conversion by ffmpeg, before the frames were converted by `lipsync.yuv`
TO_YUV = "scale=flags=bicubic+accurate_rnd:out_color_matrix=smpte170m:out_range=tv,format=yuv420p"


def face(count: int = COUNT) -> Frames:
    image = cv2.imread(str(Path(__file__).parents[3] / "samples" / "face.png"))
    assert image is not None
    return np.stack([np.roll(image, 4 * n, axis=1) for n in range(count)]).astype(np.uint8)


def planes(frame: Frames, *, alpha: bool) -> Frames:
    converted = to_yuv420(frame)
    return np.vstack((converted, opacity(frame))) if alpha else converted


def opacity(frame: Frames) -> Frames:
    return frame[:, :, 1]


async def encode(folder: Path, video: VideoFormat) -> Path:
    path = folder / f"new.{video.container}"
    async with VideoEncoder(path, video, audio(folder), Quality.STANDARD, StageTimer()) as encoder:
        for frame in face():
            await encoder.write(planes(frame, alpha=video.alpha))
        await encoder.finish()
    return path


def encode_as_before(folder: Path, video: VideoFormat) -> Path:
    path = folder / f"old.{video.container}"
    args = encode_args(video, audio(folder), path, Quality.STANDARD)
    args[args.index("-pixel_format") + 1] = "bgra" if video.alpha else "bgr24"
    filters = args.index("-vf") + 1
    args[filters] = (TO_YUV.replace("yuv420p", "yuva420p") if video.alpha else TO_YUV) + "," + args[filters]
    frames = [np.dstack((frame, opacity(frame))) if video.alpha else frame for frame in face()]
    ffmpeg(*args, data=np.stack(frames).tobytes())
    return path


def audio(folder: Path) -> AudioInput:
    path = folder / "speech.wav"
    if not path.exists():
        write_wav(path, tone(COUNT / 25))
    return AudioInput(path, True, Fraction(COUNT, 25), 100_000_000)


async def described(path: Path, decoder: list[str]) -> tuple[str, dict[str, str]]:
    """Return ffmpeg's line about the video stream, without its bit rate, and the tags of the first decoded frame."""
    shown = ["-map", "0:v", "-vf", "showinfo", "-frames:v", "1", "-f", "null", "-"]
    _, text = await process.run(["-nostdin", "-hide_banner", *decoder, "-i", f"file:{path}", *shown])
    stream = re.search(r"Stream #0:0.*Video: (.*)", text)
    assert stream
    names = ("color_range", "color_space", "color_primaries", "color_trc", "fmt", "sar", "i", "s")
    tags = {name: found[1] for name in names if (found := re.search(rf"\b{name}:(\S+)", text))}
    return re.sub(r"\d+ kb/s, ", "", stream[1]), tags


def decoded(path: Path, decoder: list[str], pixels: str) -> np.ndarray:
    raw = ffmpeg(*decoder, "-i", str(path), "-map", "0:v", "-f", "rawvideo", "-pix_fmt", pixels, "pipe:1")
    return np.frombuffer(raw, np.uint8).astype(float)


@pytest.mark.parametrize(
    "video",
    [
        VideoFormat(WIDTH, HEIGHT, Fraction(25)),
        VideoFormat(WIDTH, HEIGHT, Fraction(30000, 1001), "4:3"),
        VideoFormat(WIDTH, HEIGHT, Fraction(25), alpha=True),
    ],
    ids=["square pixels", "4:3 pixels", "alpha"],
)
async def test_the_stream_is_described_as_before_and_shows_the_same(tmp_path: Path, video: VideoFormat) -> None:
    new, old = await encode(tmp_path, video), encode_as_before(tmp_path, video)
    decoder = ["-c:v", "libvpx-vp9"] if video.alpha else []
    stream, tags = await described(new, decoder)
    assert (stream, tags) == await described(old, decoder)
    assert (tags["color_space"], tags["color_range"]) == ("smpte170m", "tv")
    if not video.alpha:
        assert (tags["color_primaries"], tags["color_trc"]) == ("bt709", "bt709")
        assert stream.startswith("h264 (High)")
    pixels = "yuva420p" if video.alpha else "yuv420p"
    first, second = decoded(new, decoder, pixels), decoded(old, decoder, pixels)
    error = np.mean((first - second) ** 2)
    assert 10 * np.log10(255**2 / error) > 46


def test_the_filter_of_the_encoder_only_tags() -> None:
    assert COLOR_TAGS.startswith("setparams=")
    assert "," not in COLOR_TAGS
