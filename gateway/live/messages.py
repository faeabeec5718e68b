"""The messages of a live session: JSON objects in text messages, and frames in binary ones.

docs/guide/live-socket.md has a table of these models; a test compares them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from avatar.errors import InvalidField
from avatar.inference.live_stream import LiveFrame
from lipsync.tensors import BACKGROUND, FACE_TYPE, NOT_LIVE, OPTIONS

SUBPROTOCOL = "talking-avatar.live.v1"
MAX_TEXT = 1 << 16  # characters of a text message
SAMPLE_RATES = (8_000, 48_000)
OPTION_NAMES = (FACE_TYPE, BACKGROUND, *(name for name in OPTIONS if name not in NOT_LIVE))
# of a binary message to the caller: index, bytes of sound, time of the sound
FRAME_HEAD = struct.Struct("<IId")


class FromCaller(BaseModel):
    """A message of the caller; what is not described is rejected."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Start(FromCaller):
    """The first message: whose face it is, and how it is shown."""

    type: Literal["start"]
    avatar: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Id of a face kept by `POST /v1/avatars`, or of the `avatar` of an earlier `session`.",
    )
    face_bytes: int | None = Field(
        None,
        ge=1,
        description="Bytes of an image or a short video that follows in binary messages, in place of `avatar`.",
    )
    options: dict[str, str | int | float | bool] = Field(
        {}, description="Options of the form, by name; `quality` and `background_video` are not options of a session."
    )
    sample_rate: int = Field(
        16_000, ge=SAMPLE_RATES[0], le=SAMPLE_RATES[1], description="Samples per second of the speech, 8000 to 48000."
    )
    format: Literal["jpeg"] = Field("jpeg", description="Format of the frames; there is no other one.")
    echo: bool = Field(False, description="Whether every frame comes with the sound that belongs to it.")
    rest: bool = Field(True, description="Whether frames of the face at rest are sent while there is no speech.")
    key: str | None = Field(
        None, max_length=500, repr=False, description="The API key, for browsers, which cannot send it in a header."
    )


class Clear(FromCaller):
    """Drop all speech and all frames that were not sent yet."""

    type: Literal["clear"]
    shown: int | None = Field(
        None,
        ge=-1,
        le=2**31 - 1,
        description="Index of the last frame that was shown; the avatar's motion goes on after it.",
    )


class SegmentEnd(FromCaller):
    """The speech pauses: its last frames are made as if silence followed."""

    type: Literal["segment_end"]


class End(FromCaller):
    """The speech is over: the remaining frames follow, then `summary`, and the connection is closed."""

    type: Literal["end"]


CALLER_MESSAGES: tuple[type[FromCaller], ...] = (Start, Clear, SegmentEnd, End)
_KINDS = {model.model_fields["type"].annotation.__args__[0]: model for model in CALLER_MESSAGES}  # type: ignore[union-attr]


class FromGateway(BaseModel):
    """A message to the caller. Fields may be added in later versions."""

    model_config = ConfigDict(extra="allow")


class SessionMessage(FromGateway):
    """The session has started."""

    type: Literal["session"] = "session"
    fps: str = Field(description="Frames per second: `25`, or a fraction, such as `30000/1001`.")
    width: int = Field(description="Of a frame, in pixels.")
    height: int = Field(description="Of a frame, in pixels.")
    frames: int = Field(description="Images of the avatar: 1 for a still.")
    latency: float = Field(description="Seconds of speech after a frame's own time that are needed to make it.")
    format: str = Field(description="As in `start`.")
    stand_ins: list[str] = Field(description="Models that run on stand-in checkpoints; empty with real weights.")
    sample_rate: int = Field(description="As in `start`.")
    avatar: str | None = Field(None, description="Id by which the next session of the same face starts at once.")
    request_id: str = Field(description="Names the session in the logs.")


class SegmentMessage(FromGateway):
    """All frames of a part of the speech have been sent."""

    type: Literal["segment"] = "segment"
    segment: int = Field(description="Its number; 0 is the first.")
    first: int = Field(description="Index of its first frame.")
    last: int = Field(description="Index of its last frame.")
    duration: float = Field(0.0, description="Seconds of its speech.")


class ClearedMessage(FromGateway):
    """The answer to `clear`: no frame of what was dropped follows."""

    type: Literal["cleared"] = "cleared"
    last: int = Field(description="Index of the last frame that was made; -1 for none.")
    next: int = Field(description="Index of the next frame. No index is used twice.")
    dropped: float = Field(0.0, description="Seconds of speech that were dropped.")


class SummaryMessage(FromGateway):
    """The end of the session."""

    type: Literal["summary"] = "summary"
    frames: int = Field(description="Frames that were made.")
    duration: float = Field(description="Seconds of speech.")
    without_face: int = Field(0, description="Frames in which no face was found.")


class ErrorMessage(FromGateway):
    """The session has failed, or was not started; the connection is closed."""

    type: Literal["error"] = "error"
    status: int = Field(description="As of an HTTP response.")
    code: str = Field(description="One of the codes of errors, for programs.")
    detail: str = Field(description="What is wrong, in one sentence.")
    field: str | None = Field(None, description="The field of the message that is wrong, if one is.")
    request_id: str = Field(description="Names the session in the logs.")
    retry_after: int | None = Field(None, description="Seconds after which the caller may try again, if it may.")


GATEWAY_MESSAGES: tuple[type[FromGateway], ...] = (
    SessionMessage,
    SegmentMessage,
    ClearedMessage,
    SummaryMessage,
    ErrorMessage,
)


def parse_message(text: str) -> FromCaller:
    """Return a message of the caller. Raises InvalidField, which names the field."""
    if len(text) > MAX_TEXT:
        raise InvalidField(
            "message", f"a text message has at most {MAX_TEXT} characters; the speech and the face are binary"
        )
    try:
        value: Any = json.loads(text, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError):
        raise _no_object() from None
    if not isinstance(value, dict):
        raise _no_object()
    kind = value.get("type")
    model = _KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise InvalidField("type", f"one of {', '.join(_KINDS)} expected, got {kind!a:.40}")
    try:
        message = model.model_validate(value)
    except ValidationError as error:
        raise _invalid(error) from None
    if isinstance(message, Start):
        _check_start(message)
    return message


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _no_object() -> InvalidField:
    return InvalidField("message", "a JSON object expected")  # nothing of it is quoted: it may contain a key


def _invalid(error: ValidationError) -> InvalidField:
    first = error.errors(include_url=False)[0]
    reason = "unknown field" if first["type"] == "extra_forbidden" else str(first["msg"])
    return InvalidField(".".join(map(str, first["loc"][:2])), f"{reason[:1].lower()}{reason[1:]}")


def _check_start(start: Start) -> None:
    if (start.avatar is None) == (start.face_bytes is None):
        raise InvalidField("avatar", "send either avatar or face_bytes")
    check_option_names(start.options, "options.")


def check_option_names(names: Iterable[str], prefix: str = "") -> None:
    """Return if a session has all these options. Raises InvalidField, with the name after the prefix."""
    for name in names:
        if name not in OPTION_NAMES:
            raise InvalidField(f"{prefix}{name[:40]}", f"unknown option; there are {', '.join(OPTION_NAMES)}")


def option_text(value: str | float | bool) -> str:
    """Return an option as the text that the form has for it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def pack_frame(frame: LiveFrame, *, echo: bool) -> bytes:
    """Return a frame as a binary message: its head, its sound (with `echo`), and the JPEG."""
    sound, time = (frame.sound, frame.sound_time) if echo else (b"", -1.0)
    return FRAME_HEAD.pack(frame.index, len(sound), time) + sound + frame.jpeg
