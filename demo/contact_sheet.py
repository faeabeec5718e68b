"""A contact sheet: frames of a video with the waveform of its speech under them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import soundfile
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

COLUMNS, ROWS = 6, 2
THUMB_WIDTH = 320  # pixels
WAVE_HEIGHT = 140
INK, PAPER, ACCENT = (60, 60, 60), (255, 255, 255), (40, 40, 200)  # BGR


def draw(video: Path, speech: Path, out: Path) -> None:
    """Write a PNG of twelve frames, evenly spread, each marked on the waveform below.

    Raises:
        OSError: the video or the speech cannot be read, or the PNG cannot be written.
    """
    frames, duration = _frames(video, COLUMNS * ROWS)
    thumbs = [_thumb(frame, f"{second:.2f} s") for second, frame in frames]
    rows = [np.hstack(thumbs[r * COLUMNS : (r + 1) * COLUMNS]) for r in range(ROWS)]
    wave = _waveform(speech, rows[0].shape[1], [second / duration for second, _ in frames])
    if not cv2.imwrite(str(out), np.vstack([*rows, wave])):
        raise OSError(f"{out}: cannot be written")


def _frames(video: Path, count: int) -> tuple[list[tuple[float, Picture]], float]:
    capture = cv2.VideoCapture(str(video))
    try:
        total, fps = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
        wanted = np.linspace(0, total - 1, count).astype(int)
        found: list[tuple[float, Picture]] = []
        for index in range(total):
            read, frame = capture.read()
            if not read:
                break
            found += [(index / fps, frame.astype(np.uint8))] * int((wanted == index).sum())
    finally:
        capture.release()
    if len(found) < count:
        raise OSError(f"{video}: only {len(found)} of {count} frames could be read")
    return found, total / fps


def _thumb(frame: Picture, label: str) -> Picture:
    height = round(frame.shape[0] * THUMB_WIDTH / frame.shape[1])
    thumb = cv2.resize(frame, (THUMB_WIDTH, height), interpolation=cv2.INTER_AREA)
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(thumb, label, (8, height - 10), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, thickness, cv2.LINE_AA)
    return thumb.astype(np.uint8)


def _waveform(speech: Path, width: int, marks: list[float]) -> Picture:
    try:
        sound, _ = soundfile.read(speech, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:  # the service hears more kinds than this drawing does
        raise OSError(f"{speech}: its waveform cannot be drawn: {error}") from error
    mono = np.abs(sound.mean(axis=1))
    peaks = np.array([part.max(initial=0) for part in np.array_split(mono, width)])
    peaks /= peaks.max(initial=1e-9)
    strip = np.full((WAVE_HEIGHT, width, 3), PAPER, np.uint8)
    middle = WAVE_HEIGHT // 2
    for x, peak in enumerate(peaks):
        reach = int(peak * (middle - 8))
        cv2.line(strip, (x, middle - reach), (x, middle + reach), INK, 1)
    for mark in marks:
        x = int(mark * (width - 1))
        cv2.line(strip, (x, 0), (x, WAVE_HEIGHT - 1), ACCENT, 2)
    return strip
