"""The form as OpenAPI describes it. What its values mean is `avatar.form`'s business."""

from __future__ import annotations

from typing import Any

from avatar import options
from avatar.request import Background
from lipsync.tensors import BACKGROUND, BACKGROUND_FILE, FACE_FILE, FACE_TYPE, SPEECH_FILE


def _schema(option: options.Option) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "default": option.default, "description": option.about}
    return schema | ({"enum": list(option.choices)} if option.choices else {})


FORM_NAME = "AvatarForm"  # among the OpenAPI schemas
FORM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": FORM_NAME,
    "required": [FACE_FILE, SPEECH_FILE, FACE_TYPE, BACKGROUND],
    "properties": {
        FACE_FILE: {
            "type": "string",
            "format": "binary",
            "description": "A picture or a video of the avatar. Every picture used must show a face.",
        },
        SPEECH_FILE: {
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
