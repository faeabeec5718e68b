"""The files that the examples in the documents use."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import soundfile

SECONDS = 0.6  # of speech; 15 frames


@pytest.fixture(scope="module")
def material(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with face.jpg (320x240) and speech.wav, small enough to be quick."""
    folder = tmp_path_factory.mktemp("material")
    cv2.imwrite(str(folder / "face.jpg"), cv2.imread(str(samples / "face.png"))[::2, ::2])
    speech, rate = soundfile.read(samples / "speech.wav", start=16_000, frames=int(SECONDS * 16_000))
    soundfile.write(folder / "speech.wav", speech, rate, subtype="PCM_16")
    return folder
