"""OpenAPI schema of the form. `gateway.multipart` reads the form itself, so FastAPI cannot derive the schema."""

from __future__ import annotations

from avatar.form.fields import OPTION_FIELDS, Field
from avatar.request import Background
from lipsync.tensors import BACKGROUND, BACKGROUND_FILE, FACE_FILE, FACE_TYPE, SPEECH_FILE


def _schema(field: Field[object]) -> dict[str, object]:
    schema: dict[str, object] = {"type": "string", "default": field.default_text, "description": field.description}
    return schema | ({"enum": list(field.choices)} if field.choices else {})


FORM_NAME = "AvatarForm"  # name of the schema
FORM_SCHEMA: dict[str, object] = {
    "type": "object",
    "title": FORM_NAME,
    "required": [FACE_FILE, SPEECH_FILE, FACE_TYPE, BACKGROUND],
    "properties": {
        FACE_FILE: {
            "type": "string",
            "format": "binary",
            "description": "Image or video of the avatar. Every frame that is used must show a face.",
        },
        SPEECH_FILE: {
            "type": "string",
            "format": "binary",
            "description": "The speech: any audio file that ffmpeg reads. The result has the same duration.",
        },
        FACE_TYPE: {
            "type": "string",
            "description": "Extension of face_file, without the dot. jpg, jpeg, png (in any case): an image, shown at "
            "25 frames per second. Anything else: a video, with its own frame rate. This is a hint only; the type is "
            "detected from the content.",
            "examples": ["png", "jpg", "mp4"],
        },
        BACKGROUND: {
            "type": "string",
            "examples": [background.value for background in Background] + ["#00a0ff"],
            "description": "Background of an image: kept (From Input), replaced with a color (White, Black, Green, "
            "Red, Blue, #rrggbb), or removed (Transparent: the result is a WebM with an alpha channel). "
            "Ignored for a video, unless background_video is true.",
        },
        BACKGROUND_FILE: {
            "type": "string",
            "format": "binary",
            "description": "Image to use as the background; it overrides `background`. Optional.",
        },
        **{field.name: _schema(field) for field in OPTION_FIELDS},
    },
}
