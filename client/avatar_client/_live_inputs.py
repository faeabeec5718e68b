"""The inputs of a live session's requests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import _messages
from ._errors import InvalidRequest
from ._messages import InputTensor
from ._models import check
from ._schema import ECHO, LIVE_SAMPLE_RATE, MIN_SAMPLES, NEW_SEQUENCE, PREPARED_AVATAR, SAMPLE_RATE

PIECE_SECONDS = 10  # of speech in one request; the server accepts three times as much
NO_SPEECH = InputTensor("pcm", "INT16", (0,), b"")
Samples = NDArray[np.float32] | NDArray[np.int16]


@dataclass(frozen=True)
class LiveSettings:
    """What the first request says about a session, besides its avatar; the defaults are those of API 1.0."""

    sample_rate: int = SAMPLE_RATE
    echo: bool = False
    avatar: str | None = None
    new_sequence: bool = False

    def inputs(self) -> list[InputTensor]:
        """Return the inputs; none for a default, which a server of API 1.0 accepts."""
        inputs = []
        if self.sample_rate != SAMPLE_RATE:
            inputs.append(number(LIVE_SAMPLE_RATE, self.sample_rate))
        if self.echo:
            inputs.append(_messages.text_tensor(ECHO, "true"))
        if self.avatar is not None:
            inputs.append(_messages.text_tensor(PREPARED_AVATAR, self.avatar))
        if self.new_sequence:
            inputs.append(number(NEW_SEQUENCE, 1))
        return inputs


def number(name: str, value: int) -> InputTensor:
    """Return an INT32 tensor [1]."""
    return _messages.array_tensor(name, "INT32", np.array([value], np.int32))


def speech(samples: Samples | None, rate: int, *, may_be_short: bool = True) -> list[InputTensor]:
    """Return speech as inputs of a length that the server accepts; none for no speech.

    Raises:
        InvalidRequest: another type, or too few samples.
    """
    if samples is None:
        return []
    is_pcm = isinstance(samples, np.ndarray) and samples.dtype == np.int16
    name, dtype = ("pcm", "INT16") if is_pcm else ("audio", "FP32")
    check(name, dtype, (-1,), samples)
    fewest = MIN_SAMPLES * rate // SAMPLE_RATE
    if not may_be_short and len(samples) < fewest:
        raise InvalidRequest(f"{name}: at least {fewest} samples expected, got {len(samples)}")
    if not len(samples):
        return []
    pieces = np.array_split(samples, -(-len(samples) // (PIECE_SECONDS * rate)))
    return [_messages.array_tensor(name, dtype, piece) for piece in pieces]


def mono(samples: bytes | memoryview, channels: int) -> NDArray[np.int16]:
    """Return 16-bit samples of several channels, one after the other for each moment, as their mean."""
    pcm = np.frombuffer(samples, np.int16)
    return pcm if channels == 1 else pcm.reshape(-1, channels).mean(axis=1).astype(np.int16)
