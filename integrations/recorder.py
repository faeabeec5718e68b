"""Records what a viewer sees and hears into an mp4, for the examples of both packages."""

from __future__ import annotations

import math
import time
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio import AudioStream
from av.video import VideoStream
from numpy.typing import NDArray

CLOCK = Fraction(1, 1000)  # seconds of one tick of the images' times


class Recorder:
    """An mp4 of what arrives, each image at the time of its arrival.

    Attributes:
        images: number of images that arrived.
        seconds: of sound that arrived.
    """

    def __init__(self, path: Path, width: int, height: int, sample_rate: int) -> None:
        """Start the file."""
        self.images, self.seconds = 0, 0.0
        self._container = av.open(str(path), "w")
        options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "20"}
        self._video: VideoStream = self._container.add_stream("libx264", options=options)
        self._video.width, self._video.height = width // 2 * 2, height // 2 * 2
        self._video.pix_fmt = "yuv420p"
        self._video.codec_context.time_base = CLOCK
        self._audio: AudioStream = self._container.add_stream("aac", rate=sample_rate, layout="mono")
        self._rate, self._samples, self._last_tick = sample_rate, 0, -1
        self._start = time.monotonic()

    def image(self, rgb: NDArray[np.uint8]) -> None:
        """Add an image UINT8 [H,W,3]."""
        self.images += 1
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb[: self._video.height, : self._video.width]))
        self._last_tick = max(self._last_tick + 1, round((time.monotonic() - self._start) / CLOCK))
        frame.pts, frame.time_base = self._last_tick, CLOCK
        self._container.mux(self._video.encode(frame))

    def sound(self, samples: NDArray[np.int16], at: float | None = None) -> None:
        """Add sound that is played at a time of `time.monotonic`; by default right after the sound before it."""
        self.seconds += len(samples) / self._rate
        if at is None and not self._samples:
            at = time.monotonic()
        missing = 0 if at is None else round((at - self._start) * self._rate) - self._samples
        if missing > 0:
            self._encode(np.zeros(missing, np.int16))
        self._encode(samples)

    def close(self) -> None:
        """Finish the file."""
        for stream in (self._video, self._audio):
            self._container.mux(stream.encode(None))
        self._container.close()

    def _encode(self, samples: NDArray[np.int16]) -> None:
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._samples, Fraction(1, self._rate)
        self._samples += len(samples)
        self._container.mux(self._audio.encode(frame))


def read_wav(path: Path) -> tuple[NDArray[np.int16], int]:
    """Return the samples of a 16-bit wav, one channel of it, and their rate."""
    with wave.open(str(path)) as file:
        if file.getsampwidth() != 2:
            raise ValueError(f"{path}: 16-bit samples expected, got {8 * file.getsampwidth()}-bit ones")
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        return samples[:: file.getnchannels()].copy(), file.getframerate()


def pieces(samples: NDArray[np.int16], rate: int, seconds: float = 0.02) -> list[NDArray[np.int16]]:
    """Return speech in pieces as a text-to-speech service sends them."""
    return np.array_split(samples, max(1, math.ceil(len(samples) / (seconds * rate))))
