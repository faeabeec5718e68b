"""The speech of a pipeline, in the form that a conversation takes: mono, at one rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pipecat.audio.resamplers.base_audio_resampler import BaseAudioResampler
from pipecat.audio.utils import create_stream_resampler
from pipecat.frames.frames import TTSAudioRawFrame

from avatar_client.conversation import mono

Pcm = NDArray[np.int16]


class SpeechConverter:
    """Converts audio frames of any rate and number of channels, as one stream until `flush` or `reset`."""

    def __init__(self, sample_rate: int) -> None:
        """Convert to `sample_rate`, in Hz."""
        self._rate = sample_rate
        self._resampler: BaseAudioResampler | None = None
        self._from = sample_rate  # rate of the resampler's input

    async def convert(self, frame: TTSAudioRawFrame) -> Pcm:
        """Return the samples that are complete."""
        samples = mono(frame.audio, frame.num_channels)
        tail = await self.flush() if frame.sample_rate != self._from else np.zeros(0, np.int16)
        if frame.sample_rate == self._rate:
            return np.concatenate((tail, samples))
        if self._resampler is None:
            self._resampler = create_stream_resampler(clear_after_secs=None)
            self._from = frame.sample_rate
        audio = await self._resampler.resample(samples.tobytes(), frame.sample_rate, self._rate)
        return np.concatenate((tail, np.frombuffer(audio, np.int16)))

    async def flush(self) -> Pcm:
        """Return the last samples of a stream."""
        audio = await self._resampler.flush() if self._resampler else b""
        self.reset()
        return np.frombuffer(audio, np.int16)

    def reset(self) -> None:
        """Drop what is not complete."""
        self._resampler, self._from = None, self._rate
