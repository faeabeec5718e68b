"""Sound and picture at the end of a clip: a marked frame and a marked click, found again in the result.

Here at seconds; `make test-long` runs the same at ten minutes.
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
from tests.support.media import RATE, ffmpeg, read_sound, request, run, write_wav

SECONDS = int(os.environ.get("AVATAR_TEST_SECONDS", "8"))
RATES = ["24000/1001", "25", "30000/1001", "30", "50", "60000/1001"]
BOX = (10, 54, 10, 54)


def clicking(path: Path, seconds: float, clicks: list[float]) -> Path:
    samples = np.zeros(round(seconds * RATE), np.float32)
    for at in clicks:
        samples[round(at * RATE)] = 0.9
    return write_wav(path, samples)


def flashing(path: Path, seconds: Fraction, fps: str, flashes: list[Fraction]) -> Path:
    """A dark video, white in the frames that are shown at these times."""
    white = "+".join(f"eq(n\\,{round(flash * Fraction(fps))})" for flash in flashes)
    source = f"color=black:s=96x64:r={fps}:d={float(seconds):.6f}"
    drawn = f"drawbox=color=white:t=fill:enable='{white}'"
    codec = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
    ffmpeg("-f", "lavfi", "-i", source, "-vf", drawn, *codec, "-y", str(path))
    return path


def heard(path: Path) -> list[float]:
    """Seconds of the clicks."""
    sound = np.abs(read_sound(path, 48_000))
    loud = np.flatnonzero(sound > 0.15)
    groups = np.split(loud, np.flatnonzero(np.diff(loud) > 4800) + 1)
    return [float(group[np.argmax(sound[group])]) / 48_000 for group in groups if len(group)]


def seen(path: Path) -> list[float]:
    """Seconds at which white frames are shown, by the file's own clock."""
    capture, times = cv2.VideoCapture(str(path)), []
    while capture.grab():
        time = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        frame = capture.retrieve()[1]
        if frame[-8:].mean() > 128:
            times.append(time)
    return times


@pytest.mark.parametrize("fps", RATES)
async def test_sound_and_picture_are_in_step_to_the_end(tmp_path: Path, fps: str) -> None:
    end = Fraction(SECONDS) - 1
    marks = [Fraction(round(at * Fraction(fps))) / Fraction(fps) for at in (Fraction(1), end / 2, end)]
    face = flashing(tmp_path / "face.mp4", Fraction(SECONDS), fps, marks)
    voice = clicking(tmp_path / "speech.wav", SECONDS, [float(mark) for mark in marks])
    job = replace(request(tmp_path, face, voice, still=False), options=Options(box=BOX))
    result = await run(job, FakeInference())
    clicks, flashes = heard(result.path), seen(result.path)
    assert len(clicks) == len(flashes) == 3
    half = 0.5 / float(Fraction(fps))
    np.testing.assert_allclose(clicks, flashes, atol=half)
    np.testing.assert_allclose(flashes, [float(mark) for mark in marks], atol=half)


@pytest.mark.parametrize("fps", RATES)
async def test_a_looped_video_stays_in_step(tmp_path: Path, fps: str) -> None:
    rate = Fraction(fps)
    count = 37  # frames; the flash is in the sixth of every round
    face = flashing(tmp_path / "face.mp4", count / rate, fps, [5 / rate])
    voice = clicking(tmp_path / "speech.wav", SECONDS, [])
    for longer, period in ((ExtendMode.LOOP, count), (ExtendMode.BOUNCE, 2 * count - 2)):
        job = replace(request(tmp_path, face, voice, still=False), options=Options(box=BOX, extend=longer))
        flashes = seen((await run(job, FakeInference())).path)
        frames = range(-(-SECONDS * rate // 1))
        wanted = [
            float(n / rate) for n in frames if n % period in (5, (period - 5 if longer is ExtendMode.BOUNCE else 5))
        ]
        np.testing.assert_allclose(flashes, wanted, atol=0.5 / float(rate))


async def test_an_uneven_clock_stays_in_step(tmp_path: Path) -> None:
    end = Fraction(SECONDS) - 1
    marks = [Fraction(1), end]
    even = flashing(tmp_path / "even.mp4", Fraction(SECONDS), "25", marks)
    drop = r"select='lt(mod(n\,60)\,30)+not(mod(n\,5))'"  # a fifth of the frames in every other stretch
    ffmpeg("-i", str(even), "-vf", drop, "-fps_mode", "passthrough", "-y", str(tmp_path / "face.mp4"))
    voice = clicking(tmp_path / "speech.wav", SECONDS, [float(mark) for mark in marks])
    job = replace(request(tmp_path, tmp_path / "face.mp4", voice, still=False), options=Options(box=BOX))
    result = await run(job, FakeInference())
    clicks, flashes = heard(result.path), seen(result.path)
    assert abs(clicks[-1] - float(end)) < 0.02
    assert abs(flashes[-1] - clicks[-1]) < 5 * 0.04  # the flash lasts until the next frame that was left
    assert min(abs(flash - clicks[-1]) for flash in flashes) <= 0.02
