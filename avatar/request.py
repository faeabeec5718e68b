"""The job's input, validated and frozen."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from .intake import LIMITS, Limits
from .options import DEFAULTS, Options

RGB = tuple[int, int, int]


class Background(Enum):
    """The values of the form's `background`; each colour is true RGB in the result."""

    FROM_INPUT = "From Input"
    WHITE = "White"
    BLACK = "Black"
    GREEN = "Green"
    RED = "Red"
    BLUE = "Blue"

    @property
    def rgb(self) -> RGB | None:
        """The colour, or None where the picture's own background stays."""
        return _COLOURS.get(self)


_COLOURS: dict[Background, RGB] = {
    Background.WHITE: (255, 255, 255),
    Background.BLACK: (0, 0, 0),
    Background.GREEN: (0, 255, 0),
    Background.RED: (209, 52, 52),
    Background.BLUE: (0, 128, 255),
}


@dataclass(frozen=True)
class AvatarRequest:
    """One job.

    Attributes:
        face: the picture or video, a file inside `folder`.
        speech: the recording, a file inside `folder`.
        still: whether the caller takes `face` for a picture. Its content decides; where that may be either (GIF),
            this does.
        background: for stills; ignored for videos.
        folder: the request's own folder; whoever made it removes it when the answer is sent.
        options: what else the caller chose.
        limits: what is refused as too much.
        id: names the request in log lines.
    """

    face: Path
    speech: Path
    still: bool
    background: Background
    folder: Path
    id: str = "-"
    options: Options = DEFAULTS
    limits: Limits = LIMITS
