"""Small files made from the samples of the project, for tests that run what a person would type."""

from __future__ import annotations

from pathlib import Path

import cv2
import soundfile

SECONDS, FRAMES = 0.6, 15  # of the speech, and of the video that it gives


def write(samples: Path, folder: Path, face: str) -> Path:
    """Write `face` (320x240, of the type that its name says) and speech.wav (16 kHz), and return their folder."""
    cv2.imwrite(str(folder / face), cv2.imread(str(samples / "face.png"))[::2, ::2])
    speech, rate = soundfile.read(samples / "speech.wav", start=16_000, frames=int(SECONDS * 16_000))
    soundfile.write(folder / "speech.wav", speech, rate, subtype="PCM_16")
    return folder
