"""The form's fields, however they came: raw values stop here, a frozen AvatarRequest goes on.

The original's four fields are needed. The options (`avatar.options`) are optional, with the original's behaviour as
their defaults. `background` counts for stills only, so with a video any value of it passes, as in the original. The
extension only says still or video, and the file's content knows better: it never becomes part of a path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lipsync.tensors import BACKGROUND, BACKGROUND_FILE, FACE_FILE, FACE_TYPE, SPEECH_FILE

from .. import options
from ..errors import InvalidField
from ..limits import LIMITS, Limits
from ..request import AvatarRequest, Background, Color

# field → the fixed name of its file in the request's folder
FILES: dict[str, str] = {FACE_FILE: "face", SPEECH_FILE: "speech", BACKGROUND_FILE: "backdrop"}
TEXTS = frozenset({FACE_TYPE, BACKGROUND, *(option.name for option in options.OPTIONS)})
TEXT_BYTES = 1024  # no value comes near it
TOO_LONG = f"the value is longer than {TEXT_BYTES} bytes"
STILL_TYPES = frozenset({"jpg", "jpeg", "png"})
_SHOWN = 40  # characters of a bad value that its error repeats


@dataclass(frozen=True)
class Upload:
    """A file field as it came: where it lies, and how many bytes it has."""

    path: Path
    size: int


# The known fields of a form; a field may be of the wrong kind, or missing.
Form = Mapping[str, str | Upload]


def parse(
    form: Form,
    folder: Path,
    identity: str,
    limits: Limits = LIMITS,
    *,
    streamed: bool = False,
    live: bool = False,
) -> AvatarRequest:
    """The job that a form asks for. Raises InvalidField, naming the field, where it does not do.

    Args:
        form: its fields.
        folder: the request's own.
        identity: names the request in log lines.
        limits: what is refused as too much.
        streamed: whether the result is wanted in chunks.
        live: whether the speech comes later, as it is spoken: then nothing lies where the request says that it is.
    """
    face = _file(form, FACE_FILE)
    speech = folder / FILES[SPEECH_FILE] if live else _file(form, SPEECH_FILE)
    still = is_still(_text(form, FACE_TYPE))
    background = _text(form, BACKGROUND)
    chosen = options.parse({option.name: _optional(form, option.name) for option in options.OPTIONS})
    return AvatarRequest(
        face_path=face,
        audio_path=speech,
        is_still=still,
        background=_background(background, counts=still or chosen.background_video),
        folder=folder,
        id=identity,
        options=chosen,
        limits=limits,
        background_file=_optional_file(form, BACKGROUND_FILE),
        streamed=streamed,
    )


def is_still(extension: str) -> bool:
    """Whether the extension names a picture. Callers who leave a dot in front or shout are understood."""
    return extension.strip().removeprefix(".").lower() in STILL_TYPES


def _file(form: Form, field: str) -> Path:
    value = _given(form, field)
    if not isinstance(value, Upload):
        raise InvalidField(field, "send a file here, not text")
    if value.size == 0:
        raise InvalidField(field, "the file is empty")
    return value.path


def _optional_file(form: Form, field: str) -> Path | None:
    """The path of a file that may be missing or, as browsers send those left blank, empty."""
    value = form.get(field)
    return None if not value or (isinstance(value, Upload) and value.size == 0) else _file(form, field)


def _text(form: Form, field: str) -> str:
    value = _given(form, field)
    if isinstance(value, Upload):
        raise InvalidField(field, "send text here, not a file")
    if not value:
        raise InvalidField(field, "the value is empty")
    return value


def _optional(form: Form, field: str) -> str:
    """The value of a field that may be missing or, as browsers send those left blank, empty."""
    return _text(form, field) if form.get(field) else ""


def _given(form: Form, field: str) -> str | Upload:
    try:
        return form[field]
    except KeyError:
        raise InvalidField(field, "the field is missing") from None


def _background(value: str, *, counts: bool) -> Background | Color:
    if re.fullmatch(r"#[0-9A-Fa-f]{6}", value):
        return Color((int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)))
    try:
        return Background(value)
    except ValueError:
        if not counts:
            return Background.FROM_INPUT
        shown = ascii(value if len(value) <= _SHOWN else value[:_SHOWN] + "...")
        allowed = ", ".join(background.value for background in Background)
        raise InvalidField(BACKGROUND, f"{shown} is not one of {allowed}, #rrggbb") from None
