"""What a running job tells its caller: progress, and at the end the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path


@dataclass(frozen=True)
class Progress:
    """`done` of `total` frames have left the stage; `total` is None while it is not known."""

    stage: str
    done: int
    total: int | None = None


@dataclass(frozen=True)
class Chunk:
    """The next bytes of a result that is streamed; the first one is enough for a player to begin."""

    data: bytes


@dataclass(frozen=True)
class RenderResult:
    """The finished job.

    Attributes:
        path: the mp4 (or, with an alpha channel, the WebM), in the request's folder; None where it was streamed.
        container: `mp4` or `webm`.
        frames: pictures in it, `ceil(duration · fps)`.
        fps: its exact frame rate.
        duration: seconds.
        seconds: time spent in each stage; stages overlap, so the sum may exceed the whole.
        stand_ins: models that ran on stand-in checkpoints; empty with real weights.
        without_face: of the frames, those in which no face was found.
    """

    path: Path | None
    container: str
    frames: int
    fps: Fraction
    duration: float
    seconds: Mapping[str, float]
    stand_ins: tuple[str, ...] = ()
    without_face: int = 0


Event = Progress | Chunk | RenderResult
