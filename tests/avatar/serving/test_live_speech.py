"""The speech of a live session at other rates than 16 kHz."""

from __future__ import annotations

import numpy as np
import pytest
import soxr

from avatar.serving.live_speech import SpeechStream, as_pcm, speech_latency
from lipsync.mel import mel_spectrogram
from lipsync.mel_stream import LATENCY
from lipsync.mel_windows import mel_windows

RATES = [8000, 11_025, 22_050, 24_000, 44_100, 48_000]
FRAMES = 25


def tone(rate: int, seconds: float = 1.0) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * (200 + 900 * time) * time)).astype(np.float32)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("milliseconds", [20, 333])
def test_windows_equal_those_of_speech_that_was_resampled_as_a_whole(rate: int, milliseconds: int) -> None:
    speech, stream, size = tone(rate), SpeechStream(25.0, rate), rate * milliseconds // 1000
    windows = [window for at in range(0, len(speech), size) for window in stream.feed(speech[at : at + size])]
    windows += stream.end()
    whole = soxr.resample(speech, rate, 16_000, quality="HQ")
    expected = mel_windows(mel_spectrogram(np.concatenate((whole, np.zeros(16_000, np.float32)))), 25.0)
    np.testing.assert_allclose(np.stack(windows), expected[: len(windows)], atol=1e-4)


@pytest.mark.parametrize("rate", [24_000, 44_100, 48_000])
def test_windows_are_close_to_those_of_the_same_sound_at_16_khz(rate: int) -> None:
    windows = [*(stream := SpeechStream(25.0, rate)).feed(tone(rate)), *stream.end()]
    expected = [*(stream := SpeechStream(25.0, 16_000)).feed(tone(16_000)), *stream.end()]
    inside = slice(2, FRAMES - 6)  # at the ends the two differ by what a filter makes of a sudden start
    assert np.abs(np.stack(windows)[inside] - np.stack(expected)[inside]).mean() < 0.1  # of ±4


@pytest.mark.parametrize("rate", [16_000, *RATES])
def test_no_window_comes_later_than_the_latency(rate: int) -> None:
    stream, fed, made = SpeechStream(25.0, rate), 0, 0
    step = rate // 200
    for _ in range(400):
        fed += step
        made += len(stream.feed(np.zeros(step, np.float32)))
        assert made >= int((fed / rate - speech_latency(rate)) * 25)
    assert speech_latency(16_000) == LATENCY
    assert speech_latency(rate) < LATENCY + 0.13


def test_values_that_are_no_sound_do_not_spread() -> None:
    speech = tone(48_000)
    speech[24_000:24_010] = [np.nan, np.inf, -np.inf, 3e38, -3e38] * 2
    windows = [*(stream := SpeechStream(25.0, 48_000)).feed(speech), *stream.end()]
    assert np.isfinite(np.stack(windows)).all()
    undisturbed = [*(stream := SpeechStream(25.0, 48_000)).feed(tone(48_000)), *stream.end()]
    np.testing.assert_allclose(windows[:5], undisturbed[:5], atol=1e-4)
    np.testing.assert_allclose(windows[-6:], undisturbed[-6:], atol=1e-4)


def test_floats_become_the_nearest_integers_that_are_allowed() -> None:
    floats = np.array([0, 0.5, -1, 1, 2, -2, np.nan, 1 / 32768], np.float32)
    assert as_pcm(floats).tolist() == [0, 16_384, -32_768, 32_767, 32_767, -32_768, 0, 1]
    integers = np.arange(-32_768, 32_768, dtype=np.int32).astype(np.int16)
    np.testing.assert_array_equal(as_pcm(integers.astype(np.float32) / 32768), integers)
