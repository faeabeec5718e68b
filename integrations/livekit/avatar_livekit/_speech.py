"""The speech of an agent, in the form that a conversation takes: mono, at one rate."""

from __future__ import annotations

import numpy as np
from livekit import rtc
from numpy.typing import NDArray

from avatar_client.conversation import mono

Pcm = NDArray[np.int16]


class SpeechConverter:
    """Converts audio frames of any rate and number of channels, as one stream until `flush` or `reset`."""

    def __init__(self, sample_rate: int) -> None:
        """Convert to `sample_rate`, in Hz."""
        self._rate = sample_rate
        self._resampler: rtc.AudioResampler | None = None
        self._from = sample_rate  # rate of the resampler's input

    def convert(self, frame: rtc.AudioFrame) -> Pcm:
        """Return the samples that are complete."""
        samples = mono(frame.data[: frame.samples_per_channel * frame.num_channels], frame.num_channels)
        tail = self.flush() if frame.sample_rate != self._from else np.zeros(0, np.int16)
        if frame.sample_rate == self._rate:
            return np.concatenate((tail, samples))
        if self._resampler is None:
            self._resampler = rtc.AudioResampler(frame.sample_rate, self._rate)
            self._from = frame.sample_rate
        return np.concatenate((tail, *map(_samples, self._resampler.push(bytearray(samples.tobytes())))))

    def flush(self) -> Pcm:
        """Return the last samples of a stream."""
        frames = self._resampler.flush() if self._resampler else []
        self.reset()
        return np.concatenate((np.zeros(0, np.int16), *map(_samples, frames)))

    def reset(self) -> None:
        """Drop what is not complete."""
        self._resampler, self._from = None, self._rate


def _samples(frame: rtc.AudioFrame) -> Pcm:
    return np.frombuffer(frame.data, np.int16)
