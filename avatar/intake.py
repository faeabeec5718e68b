"""What holds for every uploaded file, whatever it is."""

from __future__ import annotations

from pathlib import Path

from .errors import InvalidField

FACE, SPEECH = "face_file", "audio_file"  # the form fields that the files came in
MAX_PIXELS = 16_000_000  # a picture or frame; the detector's first layer alone takes 512 bytes for each
MAX_SIDE = 16_384  # pixels; the most that the H.264 encoder takes
MAX_SPEECH = 3600  # seconds; a small file may claim days of silence. An hour is 230 MB as samples
MAX_FRAMES = 100_000  # of a result; their mel windows are 5 KB each, and travel in one message of at most 2 GB


def refuse_empty(field: str, path: Path) -> None:
    """Raise InvalidField for a file of no bytes."""
    if not path.stat().st_size:
        raise InvalidField(field, "the file is empty")


def refuse_large(field: str, width: int, height: int) -> None:
    """Raise InvalidField for a picture that is more than detector and encoder can take."""
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise InvalidField(field, TOO_LARGE)


def refuse_many(frames: int) -> None:
    """Raise InvalidField for a result of more frames than can be worked on."""
    if frames > MAX_FRAMES:
        raise InvalidField(SPEECH, f"too long for this frame rate: {frames} frames, {MAX_FRAMES} at most")


TOO_LARGE = f"the picture is too large: at most {MAX_PIXELS // 1_000_000} megapixels and {MAX_SIDE} pixels a side"
TOO_LONG = f"the speech is too long: at most {MAX_SPEECH} seconds"
