from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avatar.context import JobContext, RequestLogger
from avatar.generation.mel import MelWindows
from avatar.media.audio import Speech
from avatar.testing import FakeInference
from lipsync.arrays import Floats
from lipsync.mel import mel_spectrogram
from lipsync.mel_windows import mel_windows
from tests.support.media import tone


@pytest.mark.parametrize("fps", ["25", "24000/1001", "30000/1001", "60000/1001", "12.5"])
@pytest.mark.parametrize("seconds", [0.2, 3.33, 29.99, 30.0, 75.3])
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
    assert sum(sent) > 160
    assert max(sent) < 30.2
