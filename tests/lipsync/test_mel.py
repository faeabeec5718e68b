from pathlib import Path

import numpy as np
import pytest

from lipsync import mel
from lipsync.errors import InvalidInput
from lipsync.mel import mel_spectrogram
from tests.support import librosa

of_librosa = pytest.mark.xdist_group("librosa")  # so that one process imports it


@pytest.fixture
def recorded(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "mel.npz") as arrays:
        return dict(arrays)


def test_the_mel_of_speech_equals_that_of_the_original(recorded: dict[str, np.ndarray]) -> None:
    spectrogram = mel_spectrogram(recorded["wav"])
    assert spectrogram.dtype == np.float32
    np.testing.assert_allclose(spectrogram, recorded["mel"], atol=1e-3)


@of_librosa
@pytest.mark.parametrize("gain", [1.0, 1e-6, 1e20])
def test_the_magnitudes_are_those_of_librosa_bit_for_bit(recorded: dict[str, np.ndarray], gain: float) -> None:
    reference = librosa.imported()
    sound = (recorded["wav"] * np.float32(gain)).astype(np.float32)
    expected = np.abs(reference.stft(sound, n_fft=800, hop_length=200, win_length=800, pad_mode="reflect")).T
    np.testing.assert_array_equal(mel.magnitudes(sound), expected)


@of_librosa
def test_the_filters_are_those_of_librosa_bit_for_bit() -> None:
    expected = librosa.imported().filters.mel(sr=16_000, n_fft=800, n_mels=80, fmin=55.0, fmax=7600.0)
    np.testing.assert_array_equal(mel.mel_filters(), expected)
    assert mel.mel_filters().dtype == expected.dtype


def test_the_mel_of_silence_equals_that_of_the_original(recorded: dict[str, np.ndarray]) -> None:
    silence = mel_spectrogram(np.zeros(16_000, np.float32))
    np.testing.assert_allclose(silence, recorded["mel_of_one_second_of_silence"], atol=1e-3)


def test_nan_and_infinities_count_as_zero(recorded: dict[str, np.ndarray]) -> None:
    clean = recorded["wav"].copy()
    clean[[5, 700, -1]] = 0
    broken = clean.copy()
    broken[[5, 700, -1]] = (np.nan, np.inf, -np.inf)
    np.testing.assert_array_equal(mel_spectrogram(broken), mel_spectrogram(clean))


def test_there_is_one_column_per_200_samples() -> None:
    for samples in (800, 999, 1000, 16_000):
        assert mel_spectrogram(np.zeros(samples, np.float32)).shape == (80, samples // 200 + 1)


@pytest.mark.parametrize("shape", [(799,), (0,), (2, 16_000)])
def test_audio_that_is_too_short_or_not_mono_is_rejected_by_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"^audio: "):
        mel_spectrogram(np.zeros(shape, np.float32))


SMALL = 160  # columns of a block


@pytest.mark.parametrize(
    ("columns", "samples"),
    [
        *((SMALL, rest) for rest in (15, 16, 17, 199, 200, 201, 399, 400, 600, 799, SMALL * 200)),
        (mel.BLOCK_COLUMNS, 400),
    ],
)
def test_long_speech_is_computed_in_blocks_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch, columns: int, samples: int
) -> None:
    speech = (np.random.default_rng(0).standard_normal(columns * 200 + samples) * 0.1).astype(np.float32)
    monkeypatch.setattr(mel, "BLOCK_COLUMNS", columns)
    blocks = mel_spectrogram(speech)
    monkeypatch.setattr(mel, "BLOCK_COLUMNS", speech.size)
    np.testing.assert_array_equal(blocks.view(np.uint32), mel_spectrogram(speech).view(np.uint32))
