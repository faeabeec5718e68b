"""The speech in a request of a live session."""

from __future__ import annotations

import numpy as np

from lipsync.arrays import Floats
from lipsync.tensors import LIVE_SAMPLES

from ..errors import InvalidField
from .request import StreamRequest

INPUTS = ("audio", "pcm")  # a request has one of the two


def sample_count(request: StreamRequest) -> int:
    """Return the number of samples in the request, whether they are valid or not."""
    return max(0 if (samples := request.array(name)) is None else samples.size for name in INPUTS)


def read_speech(request: StreamRequest) -> Floats | None:
    """Return the speech in the request, FP32 [n] with full scale ±1; None where it has none.

    Raises:
        InvalidField: both inputs, none where one is required, or a number of samples outside `LIVE_SAMPLES`.
    """
    audio, pcm = request.array("audio"), request.array("pcm")
    if audio is not None and pcm is not None:
        raise InvalidField("pcm", "send audio or pcm, not both")
    name, samples = ("pcm", pcm) if audio is None else ("audio", audio)
    may_be_empty = request.is_start or request.is_end
    if samples is None and not may_be_empty:
        raise InvalidField("audio", "send audio or pcm")
    if samples is None or (samples.size == 0 and may_be_empty):
        return None
    fewest, most = LIVE_SAMPLES
    if not request.is_end and samples.size < fewest:
        raise InvalidField(name, f"at least 20 ms ({fewest} samples) expected, got {samples.size}")
    if samples.size > most:
        raise InvalidField(name, f"at most 30 s ({most} samples) expected, got {samples.size}")
    return samples.astype(np.float32) / 32768 if name == "pcm" else samples
