"""The job's input, validated and frozen."""

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
    """The named values of the form's `background`; each colour is true RGB in the result."""

    FROM_INPUT = "From Input"
    WHITE = "White"
    BLACK = "Black"
    GREEN = "Green"
    RED = "Red"
    BLUE = "Blue"
    TRANSPARENT = "Transparent"

    @property
    def rgb(self) -> RGB | None:
        """The colour, or None where there is none."""
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
    """Any other colour, `#rrggbb` in the form."""

    rgb: RGB


@dataclass(frozen=True)
class AvatarRequest:
    """One job.

    Attributes:
        face: the picture or video, a file inside `folder`.
        speech: the recording, a file inside `folder`.
        still: whether the caller takes `face` for a picture. Its content decides; where that may be either (GIF),
            this does.
        background: for stills; for videos only with the option `background_video`.
        folder: the request's own folder; whoever made it removes it when the answer is sent.
        options: what else the caller chose.
        limits: what is refused as too much.
        background_file: a picture to be put behind the person, instead of `background`; a file inside `folder`.
        id: names the request in log lines.
        streamed: whether the result comes in chunks, as it is made, instead of a file.
    """

    face_path: Path
    audio_path: Path
    is_still: bool
    background: Background | Color
    folder: Path
    id: str = "-"
    options: Options = DEFAULTS
    limits: Limits = LIMITS
    background_file: Path | None = None
    streamed: bool = False


def choose_id(given: str | None) -> str:
    """The caller's own id if it can stand in a log line as it is, otherwise a new one."""
    return given if given is not None and _LOGGABLE_ID.fullmatch(given) else uuid.uuid4().hex
