"""Parse the raw fields of a form, from HTTP or gRPC, to a frozen AvatarRequest.

Both files are required. The other two fields of the original form have defaults (`DEFAULTS`), and so have the options
(`avatar.form.fields`): the original's behavior. `background` applies to stills only, so any value is accepted with a
video, as in the original; whether the file is one is decided by its content, later. The file extension only says
whether a GIF is meant as a still; it never becomes part of a path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lipsync.tensors import BACKGROUND, BACKGROUND_FILE, FACE_FILE, FACE_TYPE, SPEECH_FILE

from ..errors import InvalidField
from ..limits import LIMITS, Limits
from ..request import AvatarRequest, Background, Color, UnknownBackground
from .fields import OPTION_FIELDS, parse_options
from .values import echo

# field → the fixed name of its file in the request's folder
FILES: dict[str, str] = {FACE_FILE: "face", SPEECH_FILE: "speech", BACKGROUND_FILE: "backdrop"}
TEXTS = frozenset({FACE_TYPE, BACKGROUND, *(field.name for field in OPTION_FIELDS)})
# of the two texts of the original form, where they are missing or empty; the type only decides what a GIF is
DEFAULTS = {FACE_TYPE: "png", BACKGROUND: Background.FROM_INPUT.value}
MAX_TEXT_BYTES = 1024  # far longer than any valid value
MISSING = "the field is missing"
TOO_LONG = f"the value is longer than {MAX_TEXT_BYTES} bytes"
STILL_TYPES = frozenset({"jpg", "jpeg", "png"})
SEND_A_FILE = "send a file here, not text: a part with a filename, or with a Content-Type that is not text"
_BACKGROUNDS = {background.value.lower(): background for background in Background}


@dataclass(frozen=True)
class Upload:
    """The value of a file field: the path of the received file, and its size in bytes."""

    path: Path
    size: int


# The known fields of a form; a field may be missing, or text in place of a file.
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
    """Return the request that a form describes.

    Args:
        form: the fields.
        folder: the request's own folder.
        identity: the id of the request in log lines.
        limits: the limits of the job.
        streamed: whether the result is sent in chunks.
        live: whether the audio is sent later, while it is spoken; then there is no file at `audio_path`.

    Raises:
        InvalidField: a file is missing, or a field is invalid.
    """
    face_path = _file(form, FACE_FILE)
    audio_path = folder / FILES[SPEECH_FILE] if live else _file(form, SPEECH_FILE)
    names_still = is_still(_text(form, FACE_TYPE) or DEFAULTS[FACE_TYPE])
    background = _text(form, BACKGROUND) or DEFAULTS[BACKGROUND]
    options = parse_options({field.name: _text(form, field.name) for field in OPTION_FIELDS})
    return AvatarRequest(
        face_path=face_path,
        audio_path=audio_path,
        is_still=names_still,
        background=_background(background, applies=names_still or options.background_video),
        folder=folder,
        id=identity,
        options=options,
        limits=limits,
        background_file=_optional_file(form, BACKGROUND_FILE),
        streamed=streamed,
    )


def is_still(extension: str) -> bool:
    """Return whether the extension is that of an image. A leading dot, spaces and upper case are accepted."""
    return extension.strip().removeprefix(".").lower() in STILL_TYPES


def _file(form: Form, field: str) -> Path:
    try:
        value = form[field]
    except KeyError:
        raise InvalidField(field, MISSING) from None
    if not isinstance(value, Upload):
        raise InvalidField(field, SEND_A_FILE)
    if value.size == 0:
        raise InvalidField(field, "the file is empty")
    return value.path


def _optional_file(form: Form, field: str) -> Path | None:
    """Return the path of an optional file, or None. Browsers send an empty file for a blank field."""
    value = form.get(field)
    return None if not value or (isinstance(value, Upload) and value.size == 0) else _file(form, field)


def _text(form: Form, field: str) -> str:
    """Return the value of a text field, empty if it is missing. Browsers send an empty text for a blank field."""
    value = form.get(field, "")
    if isinstance(value, Upload):
        raise InvalidField(field, "send text here, not a file")
    return value


def _background(value: str, *, applies: bool) -> Background | Color | UnknownBackground:
    if re.fullmatch(r"#[0-9A-Fa-f]{6}", value):
        return Color((int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)))
    if found := _BACKGROUNDS.get(value.lower()):
        return found
    allowed = ", ".join(background.value for background in Background)
    unknown = UnknownBackground(f"{echo(value)} is not one of {allowed}, #rrggbb")
    if applies:
        raise InvalidField(BACKGROUND, unknown.reason)
    return unknown
