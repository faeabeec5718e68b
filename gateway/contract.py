"""The form contract: raw form fields stop here, a frozen AvatarRequest goes on.

The original's four fields are needed. The options (`avatar.options`) are optional, with the original's behaviour as
their defaults. Fields of other names are ignored, or refused in the strict mode. `background` counts for stills only,
so with a video any value of it passes, as in the original. The extension only says still or video, and the file's
content knows better: it never becomes part of a path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avatar import options
from avatar.errors import InvalidField
from avatar.intake import LIMITS, Limits
from avatar.request import AvatarRequest, Background, Colour

FACE = "face_file"
SPEECH = "audio_file"
FACE_TYPE = "avatarFileType"
BACKGROUND = "background"
BACKGROUND_FILE = "background_file"

# field → the fixed name of its file in the request's folder
FILES: dict[str, str] = {FACE: "face", SPEECH: "speech", BACKGROUND_FILE: "backdrop"}
TEXTS = frozenset({FACE_TYPE, BACKGROUND, *(option.name for option in options.OPTIONS)})
STILL_TYPES = frozenset({"jpg", "jpeg", "png"})
_SHOWN = 40  # characters of a bad value that its error repeats


@dataclass(frozen=True)
class Upload:
    """A file field as it came: where it lies, and how many bytes it has."""

    path: Path
    size: int


# The known fields of a form; a field may be of the wrong kind, or missing.
Form = Mapping[str, str | Upload]


def _schema(option: options.Option) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "default": option.default, "description": option.about}
    return schema | ({"enum": list(option.choices)} if option.choices else {})


FORM_NAME = "AvatarForm"  # among the OpenAPI schemas
FORM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": FORM_NAME,
    "required": [FACE, SPEECH, FACE_TYPE, BACKGROUND],
    "properties": {
        FACE: {
            "type": "string",
            "format": "binary",
            "description": "A picture or a video of the avatar. Every picture used must show a face.",
        },
        SPEECH: {
            "type": "string",
            "format": "binary",
            "description": "The speech: any sound file that ffmpeg reads. The result lasts as long as it.",
        },
        FACE_TYPE: {
            "type": "string",
            "description": "Extension of face_file, without the dot. jpg, jpeg, png (in any case): a still, shown at "
            "25 frames a second. Anything else: a video, with its own frame rate. The file's content knows better: a "
            "picture is a still and a video is a video, whatever is said here.",
            "examples": ["png", "jpg", "mp4"],
        },
        BACKGROUND: {
            "type": "string",
            "examples": [background.value for background in Background] + ["#00a0ff"],
            "description": "Background of a still: kept (From Input), painted in a colour (White, Black, Green, Red, "
            "Blue, #rrggbb), or left out (Transparent: the answer is a WebM with an alpha channel). "
            "For a video it is ignored, unless background_video is true.",
        },
        BACKGROUND_FILE: {
            "type": "string",
            "format": "binary",
            "description": "A picture to be put behind the person, whatever background says. Optional.",
        },
        **{option.name: _schema(option) for option in options.OPTIONS},
    },
}


def parse(form: Form, folder: Path, identity: str, limits: Limits = LIMITS) -> AvatarRequest:
    """The job that a form asks for. Raises InvalidField, naming the field, where it does not do."""
    face, speech = _file(form, FACE), _file(form, SPEECH)
    still = is_still(_text(form, FACE_TYPE))
    background = _text(form, BACKGROUND)
    chosen = options.parse({option.name: _optional(form, option.name) for option in options.OPTIONS})
    return AvatarRequest(
        face=face,
        speech=speech,
        still=still,
        background=_background(background, counts=still or chosen.background_video),
        folder=folder,
        id=identity,
        options=chosen,
        limits=limits,
        background_file=_optional_file(form, BACKGROUND_FILE),
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


def _background(value: str, *, counts: bool) -> Background | Colour:
    if re.fullmatch(r"#[0-9A-Fa-f]{6}", value):
        return Colour((int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)))
    try:
        return Background(value)
    except ValueError:
        if not counts:
            return Background.FROM_INPUT
        shown = ascii(value if len(value) <= _SHOWN else value[:_SHOWN] + "...")
        allowed = ", ".join(background.value for background in Background)
        raise InvalidField(BACKGROUND, f"{shown} is not one of {allowed}, #rrggbb") from None
