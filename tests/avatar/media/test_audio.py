import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from avatar.errors import InvalidField
from avatar.limits import LIMITS, Limits
from avatar.media.audio import Speech, decode_audio, pcm_file
from avatar.media.ffmpeg_args import decode_audio_args
from avatar.media.wav import read_wav
from avatar.timing import StageTimer
from tests.support.fake_ffmpeg import FakeFfmpeg
from tests.support.media import ffmpeg, moving_square, read_sound, tone, write_video, write_wav


@dataclass
class Decoded:
    samples: NDArray[np.float32]
    duration: Fraction
    is_finite: bool


async def decode(path: Path) -> Decoded:
    with pcm_file(path.parent) as pcm_path:
        speech = await decode_audio(path, pcm_path, LIMITS, StageTimer())
        return Decoded(speech.read(0, speech.samples), speech.duration, speech.is_finite)


async def rejected(path: Path) -> str:
    with pytest.raises(InvalidField) as error:
        await decode(path)
    assert error.value.field == "audio_file"
    return error.value.reason


async def test_16_khz_audio_is_decoded_sample_by_sample(tmp_path: Path) -> None:
    samples = tone(1.0)
    speech = await decode(write_wav(tmp_path / "a.wav", samples))
    np.testing.assert_allclose(speech.samples, samples, atol=1e-6)
    assert speech.duration == 1


async def test_the_shipped_sample_is_decoded_to_its_integers(samples: Path, tmp_path: Path) -> None:
    speech = await decode(Path(shutil.copy(samples / "speech.wav", tmp_path)))
    raw = np.frombuffer(ffmpeg("-i", str(samples / "speech.wav"), "-f", "s16le", "pipe:1"), "<i2")
    np.testing.assert_array_equal(speech.samples, raw / np.float32(32768))
    assert speech.is_finite


@pytest.mark.parametrize("channels", [1, 2, 6])
async def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    voice = tone(0.5)
    loud = np.repeat(voice[:, None], channels, axis=1)
    speech = await decode(write_wav(tmp_path / "a.wav", loud))
    np.testing.assert_allclose(speech.samples, voice, atol=1e-5)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 96_000])
async def test_other_rates_are_resampled(tmp_path: Path, rate: int) -> None:
    speech = await decode(write_wav(tmp_path / "a.wav", tone(1.0, rate), rate))
    assert abs(len(speech.samples) - 16_000) <= 1
    inner = slice(800, 15_200)
    assert np.corrcoef(speech.samples[inner], tone(1.0)[inner])[0, 1] > 0.999


@pytest.mark.parametrize("rate", [16_000, 44_100])
async def test_nan_and_infinities_count_as_0_before_resampling(tmp_path: Path, rate: int) -> None:
    damaged, zeroed = tone(1.0, rate), tone(1.0, rate)
    for at, value in ((1000, np.nan), (2000, np.inf), (3000, -np.inf)):
        damaged[at : at + 50], zeroed[at : at + 50] = value, 0
    samples = (await decode(write_wav(tmp_path / "damaged.wav", damaged, rate))).samples
    expected = (await decode(write_wav(tmp_path / "zeroed.wav", zeroed, rate))).samples
    np.testing.assert_allclose(samples, expected, atol=1e-6)


async def test_audio_of_nan_only_is_silence(tmp_path: Path) -> None:
    speech = await decode(write_wav(tmp_path / "a.wav", np.full(8000, np.nan, np.float32)))
    np.testing.assert_array_equal(speech.samples, np.zeros(8000, np.float32))


def _as_ffmpeg_decodes(path: Path, *, is_finite: bool = False) -> NDArray[np.float32]:
    pcm = path.with_suffix(".f32")
    ffmpeg(*decode_audio_args(path, LIMITS.max_pixels, pcm, is_finite=is_finite, seconds=60))
    return np.fromfile(pcm, "<f4")


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_f32le"])
async def test_plain_wav_gives_the_same_samples_as_ffmpeg_to_the_bit(
    tmp_path: Path, codec: str, channels: int, fake: FakeFfmpeg
) -> None:
    noise = np.random.RandomState(0).standard_normal((5000, channels)).astype(np.float32)
    noise[7], noise[11] = np.nan, 12.5
    wav = write_wav(tmp_path / "source.wav", noise)
    ffmpeg("-i", str(wav), "-c:a", codec, "-metadata", "title=odd", "-y", str(tmp_path / "a.wav"))
    expected = _as_ffmpeg_decodes(tmp_path / "a.wav")
    fake.started()
    np.testing.assert_array_equal((await decode(tmp_path / "a.wav")).samples, expected)
    assert not fake.started()


async def test_other_audio_takes_one_run_of_ffmpeg(tmp_path: Path, fake: FakeFfmpeg) -> None:
    wav = write_wav(tmp_path / "a.wav", tone(1.0, 44_100), 44_100)
    ffmpeg("-i", str(wav), "-y", str(tmp_path / "a.flac"))
    expected = _as_ffmpeg_decodes(tmp_path / "a.flac", is_finite=True)
    fake.started()
    np.testing.assert_array_equal((await decode(tmp_path / "a.flac")).samples, expected)
    assert len(fake.started()) == 1


def _streamed(wav: bytes) -> bytes:
    return wav[:4] + b"\xff" * 4 + wav[8:40] + b"\xff" * 4 + wav[44:]


@pytest.mark.parametrize(
    "change",
    [
        _streamed,
        lambda wav: wav[:-1001],
        lambda wav: wav + b"LIST",
        lambda wav: wav[:36] + b"what\4\0\0\0what" + wav[36:],
        lambda wav: wav[:22] + b"\3" + wav[23:],
    ],
    ids=["streamed", "cut short", "more at its end", "an unknown chunk", "three channels"],
)
async def test_ffmpeg_judges_a_wav_file_that_is_not_plain(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = write_wav(tmp_path / "a.wav", tone(1.0))
    assert read_wav(path)
    path.write_bytes(change(path.read_bytes()))
    assert read_wav(path) is None
    expected = _as_ffmpeg_decodes(path)
    np.testing.assert_array_equal((await decode(path)).samples[: len(expected)], expected)


async def test_audio_shorter_than_a_window_is_padded_with_silence(tmp_path: Path) -> None:
    voice = tone(0.05)
    speech = await decode(write_wav(tmp_path / "a.wav", voice))
    assert speech.duration == Fraction(1, 5)
    np.testing.assert_allclose(speech.samples[: len(voice)], voice, atol=1e-6)
    assert not speech.samples[len(voice) :].any()


@pytest.mark.parametrize("name", ["a.mp3", "a.m4a", "a.ogg", "a.flac", "a.webm", "a.mkv"])
async def test_common_formats_are_decoded(tmp_path: Path, name: str) -> None:
    wav = write_wav(tmp_path / "source.wav", tone(1.0))
    ffmpeg("-i", str(wav), "-y", str(tmp_path / name))
    speech = await decode(tmp_path / name)
    assert 1 <= speech.duration < 1.2
    assert np.abs(speech.samples).max() > 0.2


async def test_the_audio_track_of_a_video_is_decoded(tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "a.wav", tone(1.0))
    write_video(tmp_path / "silent.mp4", moving_square(25))
    ffmpeg("-i", str(tmp_path / "silent.mp4"), "-i", str(wav), "-c:v", "copy", "-y", str(tmp_path / "both.mp4"))
    speech = await decode(tmp_path / "both.mp4")
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
        (_text, "not an audio file"),
        (_header_only, "contains no audio"),
        (_silent_video, "contains no audio"),
        (_playlist, "not an audio file"),
        (_concat, "not an audio file"),
    ],
)
async def test_a_file_without_audio_is_rejected(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    make(tmp_path / "speech")
    assert reason in await rejected(tmp_path / "speech")


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
def test_the_frames_cover_the_whole_audio(samples: int, fps: Fraction, frames: int) -> None:
    assert Speech(Path("a"), Path("b"), samples, is_finite=True).frame_count(fps) == frames


async def test_a_small_file_that_claims_days_of_audio_is_rejected(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.zeros(200_000, np.float32), rate=1)
    assert await rejected(path) == "the audio is too long: at most 3600 seconds"


async def test_a_higher_limit_accepts_longer_audio(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.zeros(2_000, np.float32), rate=500)
    with pcm_file(tmp_path) as pcm_path:
        with pytest.raises(InvalidField, match="at most 3 seconds"):
            await decode_audio(path, pcm_path, Limits(max_audio_seconds=3), StageTimer())
        assert (await decode_audio(path, pcm_path, Limits(max_audio_seconds=4), StageTimer())).duration == 4
