"""Post the original service's form, as its backend does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from .errors import FormError

TIMEOUT = httpx.Timeout(30.0, read=1800.0)  # seconds; on two CPU cores a long clip takes minutes


@dataclass(frozen=True)
class Video:
    """The mp4, and the values of the response's headers. `stages`: seconds, from Server-Timing."""

    mp4: bytes
    frames: int
    stages: dict[str, float]
    stand_ins: str


def post(
    url: str, face: Path, speech: Path, background: str = "From Input", extra_fields: Mapping[str, str] | None = None
) -> Video:
    """Post one form, and wait for the video.

    Args:
        url: of the gateway.
        face: image or video.
        speech: audio.
        background: the form's field of that name.
        extra_fields: further text fields of the form.

    Raises:
        FormError: the response was not 200, or there was none.
    """
    try:
        with face.open("rb") as face_file, speech.open("rb") as audio_file:
            response = httpx.post(
                f"{url}/",
                data={"avatarFileType": face.suffix.lstrip("."), "background": background, **(extra_fields or {})},
                files={"face_file": (face.name, face_file), "audio_file": (speech.name, audio_file)},
                timeout=TIMEOUT,
                trust_env=False,  # no proxy, because the service runs on this machine
            )
    except httpx.HTTPError as error:
        raise FormError(f"{url}: {error}") from error
    if response.status_code != httpx.codes.OK:
        raise FormError(f"{response.status_code}: {response.text}")
    return Video(
        mp4=response.content,
        frames=int(response.headers.get("X-Avatar-Frames", 0)),
        stages=_stages(response.headers.get("Server-Timing", "")),
        stand_ins=response.headers.get("X-Avatar-Stand-Ins", ""),
    )


def _stages(header: str) -> dict[str, float]:
    """Parse `detect;dur=12.5, encode;dur=3` (milliseconds) to seconds by stage."""
    pairs = (entry.strip().split(";dur=") for entry in header.split(",") if ";dur=" in entry)
    return {name: float(milliseconds) / 1000 for name, milliseconds in pairs}
