"""Limits of the input and of the result, and checks that hold for every file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lipsync.tensors import SPEECH_FILE

from .errors import InvalidField

MAX_SIDE = 16_384  # pixels; the maximum of the H.264 encoder


@dataclass(frozen=True)
class Limits:
    """The limits of one job. A file over a limit is rejected before the work starts.

    Attributes:
        max_pixels: largest accepted image or video frame.
        max_work_pixels: larger images and video frames are scaled down to this size. The first layer of the detector
            alone takes 512 bytes per pixel.
        max_audio_seconds: longest accepted audio; a small file can claim days of silence. An hour is 230 MB of samples.
        max_frames: most frames of the result.
        max_fps: highest accepted frame rate of a video.
    """

    max_pixels: int = 100_000_000
    max_work_pixels: int = 3840 * 2160
    max_audio_seconds: int = 3600
    max_frames: int = 216_000
    max_fps: int = 240

    @property
    def too_large(self) -> str:
        """Return the reason for which an image or video frame is rejected."""
        return f"the image is too large: at most {self.max_pixels / 1e6:g} megapixels and {MAX_SIDE} pixels per side"

    @property
    def too_long(self) -> str:
        """Return the reason for which audio is rejected."""
        return f"the audio is too long: at most {self.max_audio_seconds} seconds"

    def check_image_size(self, field: str, width: int, height: int) -> None:
        """Raise InvalidField if an image or video frame of this size is too large."""
        if width * height > self.max_pixels or max(width, height) > MAX_SIDE:
            raise InvalidField(field, self.too_large)

    def check_frame_count(self, frames: int) -> None:
        """Raise InvalidField if the result would have too many frames."""
        if frames > self.max_frames:
            raise InvalidField(
                SPEECH_FILE, f"too long for this frame rate: {frames} frames, at most {self.max_frames} are allowed"
            )


LIMITS = Limits()


def check_not_empty(field: str, path: Path) -> None:
    """Raise InvalidField if the file is empty."""
    if not path.stat().st_size:
        raise InvalidField(field, "the file is empty")


def fit_within(width: int, height: int, pixels: int) -> tuple[int, int]:
    """Return the largest size of at most `pixels` pixels in the same proportions, or the size itself if it fits."""
    if width * height <= pixels:
        return width, height
    factor = (pixels / (width * height)) ** 0.5
    return max(1, int(width * factor)), max(1, int(height * factor))
