import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from avatar.context import JobContext, RequestLogger
from avatar.errors import InvalidField
from avatar.limits import Limits
from avatar.media import audio as sound
from avatar.media.audio import Speech
from avatar.testing import FakeModels
from tests.support.media import ffmpeg, moving_square, read_sound, tone, write_video, write_wav


@dataclass
class Heard:
    samples: NDArray[np.float32]
    duration: Fraction
    sane: bool


def job() -> JobContext:
    return JobContext(FakeModels(), RequestLogger("test"))


async def hear(path: Path) -> Heard:
    with sound.file_of_samples(path.parent) as decoded:
        speech = await sound.hear(path, decoded, job())
        return Heard(speech.read(0, speech.samples), speech.duration, speech.sane)


async def refused(path: Path) -> str:
    with pytest.raises(InvalidField) as error:
        await hear(path)
    assert error.value.field == "audio_file"
    return error.value.reason


async def test_16_khz_speech_is_heard_sample_by_sample(tmp_path: Path) -> None:
    samples = tone(1.0)
    speech = await hear(write_wav(tmp_path / "a.wav", samples))
    np.testing.assert_allclose(speech.samples, samples, atol=1e-6)
    assert speech.duration == 1


async def test_the_speech_that_ships_is_heard_as_its_integers(samples: Path, tmp_path: Path) -> None:
    speech = await hear(Path(shutil.copy(samples / "speech.wav", tmp_path)))
    raw = np.frombuffer(ffmpeg("-i", str(samples / "speech.wav"), "-f", "s16le", "pipe:1"), "<i2")
    np.testing.assert_array_equal(speech.samples, raw / np.float32(32768))
    assert speech.sane


@pytest.mark.parametrize("channels", [1, 2, 6])
async def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    voice = tone(0.5)
    loud = np.repeat(voice[:, None], channels, axis=1)
    speech = await hear(write_wav(tmp_path / "a.wav", loud))
    np.testing.assert_allclose(speech.samples, voice, atol=1e-5)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 96_000])
async def test_other_rates_are_resampled(tmp_path: Path, rate: int) -> None:
    speech = await hear(write_wav(tmp_path / "a.wav", tone(1.0, rate), rate))
    assert abs(len(speech.samples) - 16_000) <= 1
    inner = slice(800, 15_200)
    assert np.corrcoef(speech.samples[inner], tone(1.0)[inner])[0, 1] > 0.999


@pytest.mark.parametrize("rate", [16_000, 44_100])
async def test_nan_and_infinities_count_as_0_before_resampling(tmp_path: Path, rate: int) -> None:
    hurt, healed = tone(1.0, rate), tone(1.0, rate)
    for at, value in ((1000, np.nan), (2000, np.inf), (3000, -np.inf)):
        hurt[at : at + 50], healed[at : at + 50] = value, 0
    got = (await hear(write_wav(tmp_path / "hurt.wav", hurt, rate))).samples
    want = (await hear(write_wav(tmp_path / "healed.wav", healed, rate))).samples
    np.testing.assert_allclose(got, want, atol=1e-6)


async def test_nothing_but_nan_is_silence(tmp_path: Path) -> None:
    speech = await hear(write_wav(tmp_path / "a.wav", np.full(8000, np.nan, np.float32)))
    np.testing.assert_array_equal(speech.samples, np.zeros(8000, np.float32))


async def test_speech_shorter_than_a_window_is_padded_with_silence(tmp_path: Path) -> None:
    voice = tone(0.05)
    speech = await hear(write_wav(tmp_path / "a.wav", voice))
    assert speech.duration == Fraction(1, 5)
    np.testing.assert_allclose(speech.samples[: len(voice)], voice, atol=1e-6)
    assert not speech.samples[len(voice) :].any()


@pytest.mark.parametrize("name", ["a.mp3", "a.m4a", "a.ogg", "a.flac", "a.webm", "a.mkv"])
async def test_recordings_of_many_kinds_are_heard(tmp_path: Path, name: str) -> None:
    wav = write_wav(tmp_path / "source.wav", tone(1.0))
    ffmpeg("-i", str(wav), "-y", str(tmp_path / name))
    speech = await hear(tmp_path / name)
    assert 1 <= speech.duration < 1.2
    assert np.abs(speech.samples).max() > 0.2


async def test_the_sound_of_a_video_is_heard(tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "a.wav", tone(1.0))
    write_video(tmp_path / "silent.mp4", moving_square(25))
    ffmpeg("-i", str(tmp_path / "silent.mp4"), "-i", str(wav), "-c:v", "copy", "-y", str(tmp_path / "both.mp4"))
    speech = await hear(tmp_path / "both.mp4")
    np.testing.assert_allclose(speech.samples, read_sound(tmp_path / "both.mp4"), atol=1e-5)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("Hello, world! " * 100)


def _header_only(path: Path) -> None:
    write_wav(path, np.zeros(0, np.float32))


def _silent_video(path: Path) -> None:
    write_video(path.with_suffix(".mp4"), moving_square(5)).rename(path)


def _playlist(path: Path) -> None:
    wav = write_wav(path.with_name("secret.wav"), tone(1.0))
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{wav.as_uri()}\n#EXT-X-ENDLIST\n")


def _concat(path: Path) -> None:
    write_wav(path.with_name("secret.wav"), tone(1.0))
    path.write_text("ffconcat version 1.0\nfile secret.wav\n")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_empty, "the file is empty"),
        (_text, "not a sound file"),
        (_header_only, "no sound"),
        (_silent_video, "no sound"),
        (_playlist, "not a sound file"),
        (_concat, "not a sound file"),
    ],
)
async def test_what_holds_no_speech_is_refused(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    make(tmp_path / "speech")
    assert reason in await refused(tmp_path / "speech")


@pytest.mark.parametrize(
    ("samples", "fps", "frames"),
    [
        (16_000, Fraction(25), 25),
        (16_001, Fraction(25), 26),
        (15_999, Fraction(25), 25),
        (160_160, Fraction(24000, 1001), 240),  # 10.01 s: exactly 240 frames, where floats give 240.00000000000003
        (160_161, Fraction(24000, 1001), 241),
        (3200, Fraction(60000, 1001), 12),
    ],
)
def test_a_picture_lasts_as_long_as_the_speech(samples: int, fps: Fraction, frames: int) -> None:
    assert Speech(Path("a"), Path("b"), samples, sane=True).frames(fps) == frames


async def test_a_small_file_that_claims_days_of_speech_is_refused(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.zeros(200_000, np.float32), rate=1)
    assert await refused(path) == "the speech is too long: at most 3600 seconds"


async def test_a_longer_limit_lets_longer_speech_in(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.zeros(2_000, np.float32), rate=500)
    for seconds, refused_ in ((3, True), (4, False)):
        short = JobContext(FakeModels(), RequestLogger("test"), limits=Limits(max_audio_seconds=seconds))
        with sound.file_of_samples(tmp_path) as decoded:
            if refused_:
                with pytest.raises(InvalidField, match="at most 3 seconds"):
                    await sound.hear(path, decoded, short)
            else:
                assert (await sound.hear(path, decoded, short)).duration == 4
