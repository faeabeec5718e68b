"""Draw a contact sheet: frames of a video above the waveform of its speech."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import soundfile
from numpy.typing import NDArray

Image = NDArray[np.uint8]

COLUMNS, ROWS = 6, 2
THUMBNAIL_WIDTH, WAVE_HEIGHT, NOTE_HEIGHT = 320, 140, 36  # pixels
INK, PAPER, ACCENT = (60, 60, 60), (255, 255, 255), (40, 40, 200)  # BGR


def draw(video: Path, speech: Path, out: Path, note: str = "") -> None:
    """Write a PNG of twelve evenly spaced frames, each with a mark on the waveform below them, and a note at the end.

    Raises:
        OSError: the video or the speech cannot be read, or the PNG cannot be written.
    """
    frames, duration = _frames(video, COLUMNS * ROWS)
    thumbnails = [_thumbnail(frame, f"{second:.2f} s") for second, frame in frames]
    rows = [np.hstack(thumbnails[r * COLUMNS : (r + 1) * COLUMNS]) for r in range(ROWS)]
    wave = _waveform(speech, rows[0].shape[1], [second / duration for second, _ in frames])
    parts = [*rows, wave, *([_line(note, wave.shape[1])] if note else [])]
    if not cv2.imwrite(str(out), np.vstack(parts)):
        raise OSError(f"{out}: cannot be written")


def _frames(video: Path, count: int) -> tuple[list[tuple[float, Image]], float]:
    capture = cv2.VideoCapture(str(video))
    try:
        total, fps = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
        wanted = np.linspace(0, total - 1, count).astype(int)
        found: list[tuple[float, Image]] = []
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


def _thumbnail(frame: Image, label: str) -> Image:
    height = round(frame.shape[0] * THUMBNAIL_WIDTH / frame.shape[1])
    thumbnail = cv2.resize(frame, (THUMBNAIL_WIDTH, height), interpolation=cv2.INTER_AREA)
    for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(thumbnail, label, (8, height - 10), cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, thickness, cv2.LINE_AA)
    return thumbnail.astype(np.uint8)


def _line(text: str, width: int) -> Image:
    line = np.full((NOTE_HEIGHT, width, 3), PAPER, np.uint8)
    cv2.putText(line, text, (8, NOTE_HEIGHT - 12), cv2.FONT_HERSHEY_SIMPLEX, 0.7, ACCENT, 2, cv2.LINE_AA)
    return line


def _waveform(speech: Path, width: int, marks: list[float]) -> Image:
    try:
        samples, _ = soundfile.read(speech, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:  # the service accepts more formats than soundfile reads
        raise OSError(f"{speech}: cannot draw its waveform: {error}") from error
    mono = np.abs(samples.mean(axis=1))
    peaks = np.array([part.max(initial=0) for part in np.array_split(mono, width)])
    peaks /= peaks.max(initial=1e-9)
    strip = np.full((WAVE_HEIGHT, width, 3), PAPER, np.uint8)
    middle = WAVE_HEIGHT // 2
    for x, peak in enumerate(peaks):
        extent = int(peak * (middle - 8))
        cv2.line(strip, (x, middle - extent), (x, middle + extent), INK, 1)
    for mark in marks:
        x = int(mark * (width - 1))
        cv2.line(strip, (x, 0), (x, WAVE_HEIGHT - 1), ACCENT, 2)
    return strip
