"""The validated, frozen request of a job."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from .limits import LIMITS, Limits
from .options import DEFAULTS, Options

RGB = tuple[int, int, int]
_LOGGABLE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Background(Enum):
    """The named values of the form's `background`; each color is true RGB in the result."""

    FROM_INPUT = "From Input"
    WHITE = "White"
    BLACK = "Black"
    GREEN = "Green"
    RED = "Red"
    BLUE = "Blue"
    TRANSPARENT = "Transparent"

    @property
    def rgb(self) -> RGB | None:
        """Return the color, or None if the value is not a color."""
        return _COLORS.get(self)


_COLORS: dict[Background, RGB] = {
    Background.WHITE: (255, 255, 255),
    Background.BLACK: (0, 0, 0),
    Background.GREEN: (0, 255, 0),
    Background.RED: (209, 52, 52),
    Background.BLUE: (0, 128, 255),
}


@dataclass(frozen=True)
class Color:
    """Any other color, `#rrggbb` in the form."""

    rgb: RGB


@dataclass(frozen=True)
class UnknownBackground:
    """A value that is no background. It is an error only if the background of the file is replaced.

    Attributes:
        reason: what is wrong with the value, and what is allowed.
    """

    reason: str
    rgb: RGB | None = None


@dataclass(frozen=True)
class AvatarRequest:
    """One request.

    Attributes:
        face_path: the image or video of the avatar, a file inside `folder`.
        audio_path: the audio, a file inside `folder`.
        is_still: whether the caller calls the file at `face_path` an image. The content of the file decides; this
            matters only for a GIF, which can be either.
        background: the background of a still; of a video only with the option `background_video`.
        folder: the request's own folder; its creator deletes it after the response is sent.
        options: the caller's other choices.
        limits: limits of the input and of the result.
        background_file: an image to use as the background instead of `background`; a file inside `folder`.
        id: the id of the request in log lines.
        streamed: whether the result is sent in chunks while it is encoded, instead of a file.
    """

    face_path: Path
    audio_path: Path
    is_still: bool
    background: Background | Color | UnknownBackground
    folder: Path
    id: str = "-"
    options: Options = DEFAULTS
    limits: Limits = LIMITS
    background_file: Path | None = None
    streamed: bool = False


def choose_id(given: str | None) -> str:
    """Return the caller's id if it is safe in a log line, otherwise a new one."""
    return given if given is not None and _LOGGABLE_ID.fullmatch(given) else uuid.uuid4().hex
