import asyncio
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avatar.context import JobContext, RequestLogger
from avatar.errors import Unavailable
from avatar.generation.mel import MelWindows
from avatar.media.audio import Speech
from avatar.testing import FakeInference
from lipsync.arrays import Floats
from lipsync.mel import mel_spectrogram
from lipsync.mel_windows import mel_windows
from tests.support.media import other_tasks, tone, until

RATES, DURATIONS = ["25", "24000/1001", "30000/1001", "60000/1001", "12.5"], [0.2, 3.33, 29.99, 30.0, 75.3]
# every duration at one rate, and every rate for one duration with more than one chunk
QUICK = {*(("25", seconds) for seconds in DURATIONS), *((fps, 30.0) for fps in RATES)}


@pytest.mark.parametrize(
    ("fps", "seconds"),
    [
        pytest.param(fps, seconds, marks=() if (fps, seconds) in QUICK else pytest.mark.slow)
        for fps in RATES
        for seconds in DURATIONS
    ],
)
async def test_windows_computed_in_chunks_equal_those_of_the_whole_bit_for_bit(
    tmp_path: Path, fps: str, seconds: float
) -> None:
    samples = tone(seconds) + np.random.RandomState(1).normal(0, 0.05, round(seconds * 16_000)).astype(np.float32)
    speech = Speech(tmp_path, tmp_path / "decoded", len(samples), is_finite=True)
    speech.pcm_path.write_bytes(samples.tobytes())
    whole = mel_windows(mel_spectrogram(samples), float(Fraction(fps)))
    windows = MelWindows(speech, Fraction(fps), JobContext(FakeInference(), RequestLogger("test")))
    taken = [await windows.read(first, min(16, len(whole) - first)) for first in range(0, len(whole), 16)]
    np.testing.assert_array_equal(np.concatenate(taken), whole)
    np.testing.assert_array_equal(await windows.read(len(whole) + 5, 2), whole[[-1, -1]])
    await windows.aclose()


async def test_a_request_to_the_models_holds_at_most_half_a_minute_of_speech(tmp_path: Path) -> None:
    sent = []

    class RecordingInference(FakeInference):
        async def mel_windows(self, audio: Floats, fps: float) -> Floats:
            sent.append(len(audio) / 16_000)
            return await super().mel_windows(audio, fps)

    speech = Speech(tmp_path, tmp_path / "decoded", 16_000 * 200, is_finite=True)
    speech.pcm_path.write_bytes(b"")
    windows = MelWindows(speech, Fraction(25), JobContext(RecordingInference(), RequestLogger("test")))
    assert (await windows.read(4000, 16)).shape == (16, 80, 16)
    await windows.aclose()
    assert sum(sent) > 160
    assert max(sent) < 30.2


@pytest.fixture
def minute(tmp_path: Path) -> Speech:
    """Almost a minute of silence: two requests to the models."""
    speech = Speech(tmp_path, tmp_path / "decoded", 16_000 * 59, is_finite=True)
    speech.pcm_path.write_bytes(b"")
    return speech


async def test_windows_are_computed_one_request_ahead(minute: Speech) -> None:
    models = FakeInference()
    windows = MelWindows(minute, Fraction(25), JobContext(models, RequestLogger("test")))
    windows.start()
    await until(lambda: models.calls["mel_windows"] == 1 and not models.running["mel_windows"])
    await windows.read(0, 16)
    await until(lambda: models.calls["mel_windows"] == 2 and not models.running["mel_windows"])
    await windows.read(800, 16)
    await windows.read(1460, 16)
    assert models.calls["mel_windows"] == 2
    await windows.aclose()


async def test_an_error_is_raised_when_the_windows_are_read(minute: Speech) -> None:
    models = FakeInference(failures={"mel_windows": Unavailable("gone")})
    for read in (True, False):
        windows = MelWindows(minute, Fraction(25), JobContext(models, RequestLogger("test")))
        windows.start()
        await until(lambda: not other_tasks() or bool(models.calls["mel_windows"]))
        if read:
            with pytest.raises(Unavailable):
                await windows.read(0, 16)
        await windows.aclose()
        assert not other_tasks()


async def test_closing_stops_windows_that_are_being_computed(minute: Speech) -> None:
    models = FakeInference()
    models.gates["mel_windows"] = asyncio.Event()
    windows = MelWindows(minute, Fraction(25), JobContext(models, RequestLogger("test")))
    windows.start()
    await until(lambda: bool(models.running["mel_windows"]))
    await windows.aclose()
    assert not models.running["mel_windows"]
    assert not other_tasks()
