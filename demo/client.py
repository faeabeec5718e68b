"""The original form, posted as the backend posts it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

PATIENCE = httpx.Timeout(30.0, read=1800.0)  # seconds; generation on two CPU cores takes its time


class FormError(Exception):
    """The service refused the form; the message is its own."""


@dataclass(frozen=True)
class Answer:
    """The mp4 and what its headers tell. `stages`: seconds, from Server-Timing."""

    mp4: bytes
    frames: int
    stages: dict[str, float]
    stand_ins: str


def post(
    url: str, face: Path, speech: Path, background: str = "From Input", more: Mapping[str, str] | None = None
) -> Answer:
    """Post one form, with `more` of its fields, and wait for the video.

    Raises:
        FormError: the answer was not 200, or there was none.
    """
    try:
        with face.open("rb") as picture, speech.open("rb") as sound:
            answer = httpx.post(
                f"{url}/",
                data={"avatarFileType": face.suffix.lstrip("."), "background": background, **(more or {})},
                files={"face_file": (face.name, picture), "audio_file": (speech.name, sound)},
                timeout=PATIENCE,
                trust_env=False,  # no proxy: the service is on this machine
            )
    except httpx.HTTPError as error:
        raise FormError(f"{url}: {error}") from error
    if answer.status_code != httpx.codes.OK:
        raise FormError(f"{answer.status_code}: {answer.text}")
    return Answer(
        mp4=answer.content,
        frames=int(answer.headers.get("X-Avatar-Frames", 0)),
        stages=_stages(answer.headers.get("Server-Timing", "")),
        stand_ins=answer.headers.get("X-Avatar-Stand-Ins", ""),
    )


def _stages(header: str) -> dict[str, float]:
    """`detect;dur=12.5, encode;dur=3` (milliseconds) to seconds by stage."""
    pairs = (entry.strip().split(";dur=") for entry in header.split(",") if ";dur=" in entry)
    return {name: float(milliseconds) / 1000 for name, milliseconds in pairs}
