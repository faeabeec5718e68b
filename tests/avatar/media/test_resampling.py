"""Plain WAV files of other rates than 16 kHz: resampled as librosa does, without ffmpeg."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from avatar.errors import MachineFault
from avatar.limits import Limits
from avatar.media import resampling
from avatar.media.audio import decode_audio, pcm_file
from avatar.media.resampling import RATES, store_resampled
from avatar.media.wav import read_wav
from avatar.timing import StageTimer
from lipsync.mel import mel_spectrogram
from tests.support.fake_ffmpeg import FakeFfmpeg
from tests.support.media import ffmpeg, tone, write_wav


async def decoded(path: Path) -> np.ndarray:
    with pcm_file(path.parent) as pcm_path:
        speech = await decode_audio(path, pcm_path, Limits(), StageTimer())
        return speech.read(0, speech.samples)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 24_000, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2])
async def test_the_samples_are_those_of_the_whole_speech_resampled(
    tmp_path: Path, rate: int, channels: int, fake: FakeFfmpeg
) -> None:
    noise = np.random.RandomState(rate).uniform(-0.5, 0.5, (rate, channels)).astype(np.float32)
    path = tmp_path / "a.wav"
    soundfile.write(path, noise, rate, "PCM_16")
    voice = soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)
    samples = await decoded(path)
    np.testing.assert_allclose(samples, soxr.resample(voice, rate, 16_000, quality="HQ"), atol=1e-6)
    assert not fake.started()


async def test_a_long_file_is_resampled_block_by_block_to_the_same_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_wav(tmp_path / "a.wav", np.random.RandomState(0).uniform(-1, 1, 100_000).astype(np.float32), 44_100)
    whole = await decoded(path)
    monkeypatch.setattr(resampling, "BLOCK_SAMPLES", 7_001)
    np.testing.assert_array_equal(await decoded(path), whole)


async def test_speech_that_ffmpeg_resamples_has_nearly_the_same_mel_spectrogram(samples: Path, tmp_path: Path) -> None:
    for name in ("a.wav", "a.flac"):
        ffmpeg("-i", str(samples / "speech.wav"), "-ar", "44100", "-y", str(tmp_path / name))
    ours, theirs = await decoded(tmp_path / "a.wav"), await decoded(tmp_path / "a.flac")
    assert abs(len(ours) - len(theirs)) <= 1
    count = min(len(ours), len(theirs))
    difference = np.abs(mel_spectrogram(ours[:count]) - mel_spectrogram(theirs[:count]))  # of values from -4 to 4
    assert difference.mean() < 0.01


@pytest.mark.parametrize("rate", [RATES.start - 1, RATES.stop])
async def test_ffmpeg_resamples_rates_that_nobody_records_with(tmp_path: Path, rate: int, fake: FakeFfmpeg) -> None:
    samples = await decoded(write_wav(tmp_path / "a.wav", tone(0.5, rate), rate))
    assert abs(len(samples) - 8_000) < 16
    assert len(fake.started()) == 1


async def test_a_work_folder_that_is_gone_is_a_fault_of_the_machine(tmp_path: Path) -> None:
    wav = read_wav(write_wav(tmp_path / "a.wav", tone(0.5, 44_100), 44_100))
    assert wav
    with pytest.raises(MachineFault):
        await store_resampled(wav, tmp_path / "gone" / "speech.f32")
