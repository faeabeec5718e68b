"""Audio and video are in sync at the end of a clip: white frames and clicks are at the same times in the result.

`make test` runs it on a few seconds at the rates that differ in kind, `make test-long` on ten minutes at every rate.
"""

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from avatar.options import ExtendMode, Options
from avatar.testing import FakeInference
from tests.support.media import RATE, ffmpeg, file_of, read_sound, request, run, write_wav

SECONDS = int(os.environ.get("AVATAR_TEST_SECONDS", "4"))
# whole and broken, low and high; the others are of the same kinds
RATES = [
    "24000/1001",
    "25",
    "60000/1001",
    *(pytest.param(fps, marks=pytest.mark.slow) for fps in ("30000/1001", "30", "50")),
]
BOX = (10, 54, 10, 54)


def clicking(path: Path, seconds: float, clicks: list[float]) -> Path:
    samples = np.zeros(round(seconds * RATE), np.float32)
    for at in clicks:
        samples[round(at * RATE)] = 0.9
    return write_wav(path, samples)


def flashing(path: Path, seconds: Fraction, fps: str, flashes: list[Fraction]) -> Path:
    """Write a dark video that is white in the frames at these times."""
    white = "+".join(f"eq(n\\,{round(flash * Fraction(fps))})" for flash in flashes)
    source = f"color=black:s=96x64:r={fps}:d={float(seconds):.6f}"
    drawn = f"drawbox=color=white:t=fill:enable='{white}'"
    codec = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
    ffmpeg("-f", "lavfi", "-i", source, "-vf", drawn, *codec, "-y", str(path))
    return path


def click_times(path: Path) -> list[float]:
    """Return the times of the clicks in seconds."""
    sound = np.abs(read_sound(path, 48_000))
    loud = np.flatnonzero(sound > 0.15)
    groups = np.split(loud, np.flatnonzero(np.diff(loud) > 4800) + 1)
    return [float(group[np.argmax(sound[group])]) / 48_000 for group in groups if len(group)]


def flash_times(path: Path) -> list[float]:
    """Return the times of the white frames in seconds, by the timestamps of the file."""
    capture, times = cv2.VideoCapture(str(path)), []
    while capture.grab():
        time = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        frame = capture.retrieve()[1]
        if frame[-8:].mean() > 128:
            times.append(time)
    return times


@pytest.mark.parametrize("fps", RATES)
async def test_audio_and_video_are_in_sync_to_the_end(tmp_path: Path, fps: str) -> None:
    end = Fraction(SECONDS) - 1
    marks = [Fraction(round(at * Fraction(fps))) / Fraction(fps) for at in (Fraction(1), end / 2, end)]
    face = flashing(tmp_path / "face.mp4", Fraction(SECONDS), fps, marks)
    speech = clicking(tmp_path / "speech.wav", SECONDS, [float(mark) for mark in marks])
    job = replace(request(tmp_path, face, speech, still=False), options=Options(box=BOX))
    result = await run(job, FakeInference())
    clicks, flashes = click_times(file_of(result)), flash_times(file_of(result))
    assert len(clicks) == len(flashes) == 3
    half = 0.5 / float(Fraction(fps))
    np.testing.assert_allclose(clicks, flashes, atol=half)
    np.testing.assert_allclose(flashes, [float(mark) for mark in marks], atol=half)


@pytest.mark.parametrize("fps", RATES)
async def test_a_looped_video_stays_in_sync(tmp_path: Path, fps: str) -> None:
    rate = Fraction(fps)
    count = 37  # frames; the flash is in the sixth frame of every repetition
    face = flashing(tmp_path / "face.mp4", count / rate, fps, [5 / rate])
    speech = clicking(tmp_path / "speech.wav", SECONDS, [])
    for extend, period in ((ExtendMode.LOOP, count), (ExtendMode.BOUNCE, 2 * count - 2)):
        job = replace(request(tmp_path, face, speech, still=False), options=Options(box=BOX, extend=extend))
        flashes = flash_times(file_of(await run(job, FakeInference())))
        frames = range(-(-SECONDS * rate // 1))
        flash_indices = (5, period - 5 if extend is ExtendMode.BOUNCE else 5)
        expected = [float(n / rate) for n in frames if n % period in flash_indices]
        np.testing.assert_allclose(flashes, expected, atol=0.5 / float(rate))


async def test_a_video_with_a_variable_rate_stays_in_sync(tmp_path: Path) -> None:
    end = Fraction(SECONDS) - 1
    marks = [Fraction(1), end]
    constant = flashing(tmp_path / "constant.mp4", Fraction(SECONDS), "25", marks)
    drop = r"select='lt(mod(n\,60)\,30)+not(mod(n\,5))'"  # keeps a fifth of the frames in every second stretch of 30
    ffmpeg("-i", str(constant), "-vf", drop, "-fps_mode", "passthrough", "-y", str(tmp_path / "face.mp4"))
    speech = clicking(tmp_path / "speech.wav", SECONDS, [float(mark) for mark in marks])
    job = replace(request(tmp_path, tmp_path / "face.mp4", speech, still=False), options=Options(box=BOX))
    result = await run(job, FakeInference())
    clicks, flashes = click_times(file_of(result)), flash_times(file_of(result))
    assert abs(clicks[-1] - float(end)) < 0.02
    assert abs(flashes[-1] - clicks[-1]) < 5 * 0.04  # the flash lasts until the next frame that was kept
    assert min(abs(flash - clicks[-1]) for flash in flashes) <= 0.02
