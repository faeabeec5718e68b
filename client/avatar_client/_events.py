"""What the two streaming models send."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ._errors import ServerError

JsonObject = Mapping[str, Any]  # of the server's; its values are converted while they are read


@dataclass(frozen=True)
class Progress:
    """`done` of `total` frames have passed the stage; `total` is None while it is not known."""

    stage: str
    done: int
    total: int | None


@dataclass(frozen=True)
class Chunk:
    """The next bytes of the video; a player can start with the first."""

    data: bytes


@dataclass(frozen=True)
class Summary:
    """The video is complete.

    Attributes:
        frames: number of frames in it.
        fps: its exact frame rate.
        duration: seconds.
        without_face: number of frames in which no face was found.
        seconds: time spent in each stage; stages overlap, so the sum may exceed the whole.
        stand_ins: models that ran on stand-in checkpoints; empty with real weights.
        container: `mp4`, or `webm` for a video with an alpha channel.
        notes: what the server did with an unusual file, such as gaps in the clock of the audio that it closed.
        encoder: what encoded the video: `x264`, `nvenc` or `vp9`; empty if the server does not say.
        decoder: what decoded the caller's video: `cpu` or `cuda`; empty for an image.
    """

    frames: int
    fps: Fraction
    duration: float
    without_face: int
    seconds: dict[str, float]
    stand_ins: tuple[str, ...]
    container: str
    notes: tuple[str, ...] = ()
    encoder: str = ""
    decoder: str = ""

    @classmethod
    def of(cls, data: JsonObject) -> Summary:
        """Read the server's JSON object."""
        return cls(
            frames=int(data["frames"]),
            fps=Fraction(data["fps"]),
            duration=float(data["duration"]),
            without_face=int(data.get("without_face", 0)),
            seconds={str(stage): float(seconds) for stage, seconds in data.get("seconds", {}).items()},
            stand_ins=tuple(data.get("stand_ins", ())),
            container=str(data.get("container", "mp4")),
            notes=tuple(map(str, data.get("notes", ()))),
            encoder=str(data.get("encoder", "")),
            decoder=str(data.get("decoder", "")),
        )


Event = Progress | Chunk | Summary


@dataclass(frozen=True)
class SessionInfo:
    """A live session that the server has started.

    Attributes:
        fps: frames per second of speech.
        width, height: of a frame, in pixels.
        frames: number of frames of the avatar: 1 for an image.
        latency: seconds of speech after a frame's own time that the server needs before it can make the frame.
        format: the format of the frames, `bgr`, `jpeg` or `mouth`.
        token: the secret that every later request has to send; empty from a server of API 1.0.
        avatar: the id of the prepared avatar, with which later sessions start at once; empty where it is not kept.
        sample_rate: of the speech, in Hz.
        sequence_id: the secret id that the server has given to the session; empty unless that was asked for.
    """

    fps: Fraction
    width: int
    height: int
    frames: int
    latency: float
    format: str
    token: str = field(default="", repr=False)
    avatar: str = field(default="", repr=False)
    sample_rate: int = 16_000
    sequence_id: str = field(default="", repr=False)

    @classmethod
    def of(cls, data: JsonObject) -> SessionInfo:
        """Read the server's JSON object."""
        return cls(
            fps=Fraction(data["fps"]),
            width=int(data["width"]),
            height=int(data["height"]),
            frames=int(data["frames"]),
            latency=float(data["latency"]),
            format=str(data.get("format", "bgr")),
            token=str(data.get("token", "")),
            avatar=str(data.get("avatar", "")),
            sample_rate=int(data.get("sample_rate", 16_000)),
            sequence_id=str(data.get("sequence_id", "")),
        )


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a live session, to be shown at `index / fps` seconds of the session.

    Attributes:
        index: 0 for the first.
        image: UINT8 [H,W,3] BGR: the frame, or, in the format `mouth`, the inside of its box; None for a JPEG.
        jpeg: the frame as a JPEG, or None.
        box: x1 y1 x2 y2 of its face in pixels, x2 and y2 exclusive; all 0 where the frame shows none.
        sound: with `echo`, the sound that belongs to the frame, INT16 [n] at the session's rate; otherwise None.
        sound_time: with `echo`, where in all of the speech that was sent the first sample of `sound` is, in seconds;
            None where the frame has no speech, and without `echo`.
    """

    index: int
    image: NDArray[np.uint8] | None
    jpeg: bytes | None
    box: tuple[int, int, int, int]
    sound: NDArray[np.int16] | None = None
    sound_time: float | None = None


@dataclass(frozen=True)
class SegmentEnd:
    """A part of the speech that `end_segment` or `rest` has ended is complete: its last frame came before this.

    Attributes:
        segment: its number, from 0 on.
        first, last: indexes of its frames; `last` is `first - 1` where it had no speech.
        duration: seconds of its speech.
    """

    segment: int
    first: int
    last: int
    duration: float

    @classmethod
    def of(cls, data: JsonObject) -> SegmentEnd:
        """Read the server's JSON object."""
        return cls(int(data["segment"]), int(data["first"]), int(data["last"]), float(data["duration"]))


@dataclass(frozen=True)
class Cleared:
    """The answer to `clear`: what was not sent before it is dropped, and comes no more.

    Attributes:
        last: index of the last frame that was sent; -1 for none. Frames up to it that you have not shown are void.
        next: index of the next frame, which is to be shown at once.
        dropped: seconds of speech that were dropped.
    """

    last: int
    next: int
    dropped: float

    @classmethod
    def of(cls, data: JsonObject) -> Cleared:
        """Read the server's JSON object."""
        return cls(int(data["last"]), int(data["next"]), float(data["dropped"]))


LiveEvent = Frame | SegmentEnd | Cleared


@dataclass(frozen=True)
class LiveSummary:
    """The end of a live session.

    Attributes:
        frames: number of frames made.
        duration: seconds of speech that were sent.
        without_face: number of frames in which no face was found.
        segments: number of segments of the speech.
        dropped: seconds of speech that were dropped by `clear`.
    """

    frames: int
    duration: float
    without_face: int
    segments: int = 1
    dropped: float = 0.0

    @classmethod
    def of(cls, data: JsonObject) -> LiveSummary:
        """Read the server's JSON object."""
        return cls(
            frames=int(data["frames"]),
            duration=float(data["duration"]),
            without_face=int(data.get("without_face", 0)),
            segments=int(data.get("segments", 1)),
            dropped=float(data.get("dropped", 0.0)),
        )


T = TypeVar("T", Summary, SessionInfo, LiveSummary, SegmentEnd, Cleared)


def parse_json(kind: type[T], text: str) -> T:
    """Return what the server sent as JSON.

    Raises:
        ServerError: it cannot be read.
    """
    try:
        return kind.of(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ServerError(f"the server's {kind.__name__} cannot be read: {error!r}") from error
