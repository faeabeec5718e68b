"""The speech of a live session: read from requests, and turned to the windows of its frames while it arrives."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lipsync.arrays import Array, Floats
from lipsync.mel import SAMPLE_RATE
from lipsync.mel_stream import LATENCY, MelStream
from lipsync.tensors import LIVE_SAMPLES

from ..errors import InvalidField
from ..media.resampling import resampler
from .request import StreamRequest

Pcm = NDArray[np.int16]

INPUTS = ("audio", "pcm")  # a request has one of the two
FULL_SCALE = 32768
MAX_LEVEL = 1000.0  # of full scale; more would overflow in the resampler
PROBE_SECONDS, PROBES_PER_SECOND = 2, 200


def read_speech(request: StreamRequest, rate: int, *, may_be_short: bool, is_needed: bool) -> Array | None:
    """Return the speech in the request as it was sent, FP32 or INT16 [n]; None where it has none.

    Args:
        request: the request.
        rate: of its samples, in Hz.
        may_be_short: whether it may have any number of samples up to the limit, because speech ends with it.
        is_needed: whether it has to have speech.

    Raises:
        InvalidField: both inputs, none where one is required, or less than 20 ms or more than 30 s of speech.
    """
    audio, pcm = request.array("audio"), request.array("pcm")
    if audio is not None and pcm is not None:
        raise InvalidField("pcm", "send audio or pcm, not both")
    name, samples = ("pcm", pcm) if audio is None else ("audio", audio)
    if samples is None and is_needed:
        raise InvalidField("audio", "send audio or pcm")
    if samples is None or (samples.size == 0 and not is_needed):
        return None
    fewest, most = (limit * rate // SAMPLE_RATE for limit in LIVE_SAMPLES)
    if not may_be_short and samples.size < fewest:
        raise InvalidField(name, f"at least 20 ms ({fewest} samples) expected, got {samples.size}")
    if samples.size > most:
        raise InvalidField(name, f"at most 30 s ({most} samples) expected, got {samples.size}")
    return samples


def as_pcm(samples: Array) -> Pcm:
    """Return speech as 16-bit integers; NaN counts as 0."""
    if samples.dtype == np.int16:
        return samples.astype(np.int16, copy=False)
    scaled = np.nan_to_num(samples * np.float32(FULL_SCALE), nan=0.0)
    pcm: Pcm = np.rint(np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1)).astype(np.int16)
    return pcm


class SpeechStream:
    """The mel windows of one segment of speech, at any rate, while it arrives. For one thread at a time.

    They do not depend on how the speech is cut: the resampler gives the same samples for pieces of any size.
    """

    def __init__(self, fps: float, rate: int) -> None:
        self._mel = MelStream(fps)
        self._resampler = None if rate == SAMPLE_RATE else resampler(rate)

    def feed(self, samples: Array) -> list[Floats]:
        """Return the windows FP32 [80,16] that the next samples, FP32 or INT16 [n], complete."""
        return list(self._mel.feed(self._resampled(_as_floats(samples))))

    def end(self) -> list[Floats]:
        """End the speech, as `MelStream.flush`: return the windows of its remaining frames."""
        rest = [] if self._resampler is None else list(self._mel.feed(self._resampled(_NOTHING, last=True)))
        return rest + list(self._mel.flush())

    def _resampled(self, samples: Floats, *, last: bool = False) -> Floats:
        if self._resampler is None:
            return samples
        finite = np.where(np.isfinite(samples), samples, np.float32(0)).clip(-MAX_LEVEL, MAX_LEVEL)
        resampled: Floats = self._resampler.resample_chunk(finite, last=last)
        return resampled


@lru_cache(256)
def speech_latency(rate: int) -> float:
    """Return the seconds of speech that a frame needs after its own moment, at most: `LATENCY` at 16 kHz.

    At another rate it is that and the delay of the resampler, which works on blocks.
    """
    if rate == SAMPLE_RATE:
        return LATENCY
    stream, made, delay = resampler(rate), 0, 0.0
    edges = [rate * n // PROBES_PER_SECOND for n in range(PROBE_SECONDS * PROBES_PER_SECOND + 1)]
    for start, stop in pairwise(edges):
        delay = max(delay, stop / rate - made / SAMPLE_RATE)
        made += stream.resample_chunk(np.zeros(stop - start, np.float32)).size
    return LATENCY + delay


def _as_floats(samples: Array) -> Floats:
    """Return speech with full scale ±1."""
    return samples.astype(np.float32) / FULL_SCALE if samples.dtype == np.int16 else samples


_NOTHING: Floats = np.empty(0, np.float32)
