import json
from pathlib import Path

import numpy as np
import pytest

from lipsync.errors import InvalidInput
from lipsync.mel import mel_spectrogram
from lipsync.mel_windows import mel_windows, window_starts


def test_windows_equal_those_of_the_original_at_every_length_and_rate(golden: Path) -> None:
    cases = json.loads((golden / "windows.json").read_text())
    assert len(cases) >= 10
    for case in cases:
        starts = window_starts(case["mel_columns"], case["fps"])
        assert len(starts) == case["frames"]
        listed = case["starts"]
        expected = dict(enumerate(listed)) if isinstance(listed, list) else {int(i): at for i, at in listed.items()}
        assert {i: starts[i] for i in expected} == expected


@pytest.mark.parametrize("columns", [16, 17, 96, 1201])
@pytest.mark.parametrize("fps", [1.0, 5.0, 12.5, 25.0, 59.94, 119.88, 120.0, 150.0, 240.0, 1000.0])
def test_window_starts_follow_the_rule_of_the_original(columns: int, fps: float) -> None:
    step = 80.0 / fps
    expected: list[int] = []
    while int(len(expected) * step) + 16 <= columns:
        expected.append(int(len(expected) * step))
    expected.append(columns - 16)
    assert window_starts(columns, fps).tolist() == expected


@pytest.mark.parametrize("fps", [1e-300, 25.0, 1000.0])
def test_each_window_holds_its_own_columns(fps: float) -> None:
    mel = np.arange(80 * 200, dtype=np.float32).reshape(80, 200)
    windows = mel_windows(mel, fps)
    starts = window_starts(200, fps)
    assert windows.shape == (len(starts), 80, 16)
    for window, start in zip(windows, starts, strict=True):
        np.testing.assert_array_equal(window, mel[:, start : start + 16])


@pytest.mark.parametrize("fps", [0.0, -25.0, float("nan"), float("inf")])
def test_a_frame_rate_that_is_not_a_positive_number_is_rejected(fps: float) -> None:
    with pytest.raises(InvalidInput, match=r"^fps: "):
        window_starts(100, fps)


def test_a_rate_of_almost_no_frames_has_a_first_and_a_last_window() -> None:
    assert window_starts(100, 1e-300).tolist() == [0, 84]


def test_audio_shorter_than_a_window_is_rejected() -> None:
    with pytest.raises(InvalidInput, match="too short"):
        window_starts(15, 25.0)


def test_speech_in_pieces_cut_as_documented_has_the_windows_of_the_whole() -> None:
    """docs/grpc/models.md describes this for speech that is too long for one call."""
    speech = (np.random.default_rng(0).standard_normal(20 * 3200) * 0.1).astype(np.float32)
    pieces = []
    for first, after in ((0, 7), (7, 14), (14, 20)):
        before, end = (3200 if first else 0), min((after + 1) * 3200, speech.size)
        windows = mel_windows(mel_spectrogram(speech[first * 3200 - before : end]), 25.0)
        windows = windows[5 if first else 0 :]
        pieces.append(windows[: 5 * (after - first)] if after < 20 else windows)
    whole = mel_windows(mel_spectrogram(speech), 25.0)
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
