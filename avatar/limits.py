"""What holds for every uploaded file, whatever it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lipsync.tensors import SPEECH_FILE

from .errors import InvalidField

MAX_SIDE = 16_384  # pixels; the most that the H.264 encoder takes


@dataclass(frozen=True)
class Limits:
    """The most that the job works on; over them a file is refused before the work starts.

    Attributes:
        pixels: of a picture or video frame as it was sent.
        work_pixels: of a picture or video frame as it is worked on: larger ones are scaled down to it. The
            detector's first layer alone takes 512 bytes for each.
        seconds: of speech; a small file may claim days of silence. An hour is 230 MB as samples.
        frames: of the result.
        fps: of a video as it was sent.
    """

    max_pixels: int = 100_000_000
    max_work_pixels: int = 3840 * 2160
    max_audio_seconds: int = 3600
    max_frames: int = 216_000
    max_fps: int = 240

    @property
    def too_large(self) -> str:
        """The reason why a picture or frame is refused."""
        return f"the picture is too large: at most {self.max_pixels / 1e6:g} megapixels and {MAX_SIDE} pixels a side"

    @property
    def too_long(self) -> str:
        """The reason why a recording is refused."""
        return f"the speech is too long: at most {self.max_audio_seconds} seconds"

    def check_image_size(self, field: str, width: int, height: int) -> None:
        """Raise InvalidField for a picture or frame of more pixels than may be sent."""
        if width * height > self.max_pixels or max(width, height) > MAX_SIDE:
            raise InvalidField(field, self.too_large)

    def check_frame_count(self, frames: int) -> None:
        """Raise InvalidField for a result of more frames than may be worked on."""
        if frames > self.max_frames:
            raise InvalidField(SPEECH_FILE, f"too long for this frame rate: {frames} frames, {self.max_frames} at most")


LIMITS = Limits()


def check_not_empty(field: str, path: Path) -> None:
    """Raise InvalidField for a file of no bytes."""
    if not path.stat().st_size:
        raise InvalidField(field, "the file is empty")


def fit_within(width: int, height: int, pixels: int) -> tuple[int, int]:
    """The size at which a picture of this size has at most so many pixels, in the same proportions."""
    if width * height <= pixels:
        return width, height
    factor = (pixels / (width * height)) ** 0.5
    return max(1, int(width * factor)), max(1, int(height * factor))
