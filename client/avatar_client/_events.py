"""What comes out of the two streaming models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ._errors import ServerError


@dataclass(frozen=True)
class Progress:
    """`done` of `total` frames have left the stage; `total` is None while it is not known."""

    stage: str
    done: int
    total: int | None


@dataclass(frozen=True)
class Chunk:
    """The next bytes of the video; a player can begin with the first."""

    data: bytes


@dataclass(frozen=True)
class Summary:
    """The video is whole.

    Attributes:
        frames: pictures in it.
        fps: its exact frame rate.
        duration: seconds.
        without_face: of the frames, those in which no face was found.
        seconds: time spent in each stage; stages overlap, so the sum may exceed the whole.
        stand_ins: models that ran on stand-in checkpoints; empty with real weights.
        container: `mp4`, or `webm` for a video with an alpha channel.
    """

    frames: int
    fps: Fraction
    duration: float
    without_face: int
    seconds: dict[str, float]
    stand_ins: tuple[str, ...]
    container: str

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Summary:
        """From the server's JSON object."""
        return cls(
            frames=int(told["frames"]),
            fps=Fraction(told["fps"]),
            duration=float(told["duration"]),
            without_face=int(told.get("without_face", 0)),
            seconds={str(stage): float(seconds) for stage, seconds in told.get("seconds", {}).items()},
            stand_ins=tuple(told.get("stand_ins", ())),
            container=str(told.get("container", "mp4")),
        )


Event = Progress | Chunk | Summary


@dataclass(frozen=True)
class SessionInfo:
    """A live session that the server has begun.

    Attributes:
        fps: frames a second of speech.
        width, height: of a frame, in pixels.
        frames: pictures in the avatar: 1 for a still.
        latency: seconds of speech that a frame needs after its own time, before it can be made.
        format: what frames come as, `bgr`, `jpeg` or `mouth`.
    """

    fps: Fraction
    width: int
    height: int
    frames: int
    latency: float
    format: str

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> SessionInfo:
        """From the server's JSON object."""
        return cls(
            fps=Fraction(told["fps"]),
            width=int(told["width"]),
            height=int(told["height"]),
            frames=int(told["frames"]),
            latency=float(told["latency"]),
            format=str(told.get("format", "bgr")),
        )


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a live session, to be shown at `index / fps` seconds of the speech.

    Attributes:
        index: 0 for the first.
        image: UINT8 [H,W,3] BGR: the frame, or, as `mouth`, what of it is inside its box; None where it is a JPEG.
        jpeg: the frame as a JPEG, or None.
        box: x1 y1 x2 y2 of its face in pixels, x2 and y2 exclusive; all 0 where it shows none.
    """

    index: int
    image: NDArray[np.uint8] | None
    jpeg: bytes | None
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class LiveSummary:
    """A live session's speech has ended: frames made, seconds of speech, frames in which no face was found."""

    frames: int
    duration: float
    without_face: int

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> LiveSummary:
        """From the server's JSON object."""
        return cls(int(told["frames"]), float(told["duration"]), int(told.get("without_face", 0)))


T = TypeVar("T", Summary, SessionInfo, LiveSummary)


def parse_json(kind: type[T], text: str) -> T:
    """What the server told as JSON.

    Raises:
        ServerError: it cannot be read.
    """
    try:
        return kind.of(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ServerError(f"the server's {kind.__name__} cannot be read: {error!r}") from error
