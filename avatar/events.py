"""The events of a running job: progress, chunks of a streamed result, and at the end the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path


@dataclass(frozen=True)
class Progress:
    """`done` of `total` frames have passed the stage; `total` is None while it is unknown."""

    stage: str
    done: int
    total: int | None = None


@dataclass(frozen=True)
class Chunk:
    """The next bytes of a streamed result; a player can start with the first chunk."""

    data: bytes


@dataclass(frozen=True)
class RenderResult:
    """The result of a finished job.

    Attributes:
        path: the MP4 (with an alpha channel, the WebM) in the request's folder; None if the result was streamed.
        container: `mp4` or `webm`.
        frames: number of frames, `ceil(duration · fps)`.
        fps: the exact frame rate.
        duration: length in seconds.
        seconds: time of each stage; stages overlap, so the sum may exceed the total.
        stand_ins: names of the models that ran on stand-in checkpoints; empty with real weights.
        without_face: number of frames in which no face was found.
        encoder: what encoded the video: `x264`, `nvenc` or `vp9`.
        decoder: what decoded the video of the avatar: `cpu` or `cuda`; empty for an image.
        notes: sentences in ASCII that say what was done with unusual files, such as `audio_file: 2.0 s of gaps in its
            clock were closed`.
    """

    path: Path | None
    container: str
    frames: int
    fps: Fraction
    duration: float
    seconds: Mapping[str, float]
    stand_ins: tuple[str, ...] = ()
    without_face: int = 0
    notes: tuple[str, ...] = ()
    encoder: str = ""
    decoder: str = ""


Event = Progress | Chunk | RenderResult
