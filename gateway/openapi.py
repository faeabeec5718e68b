"""OpenAPI schemas of the bodies. `gateway.multipart` reads forms itself, so FastAPI cannot derive their schemas."""

from __future__ import annotations

from typing import Any

from avatar.form.fields import OPTION_FIELDS, Field
from avatar.request import Background
from jobs.records import JobClass, WebhookEvent
from lipsync.tensors import BACKGROUND, BACKGROUND_FILE, FACE_FILE, FACE_TYPE, SPEECH_FILE

from .job_fields import AUDIO_URL, AVATAR, FACE_URL, PRIORITY, RESULT_URL, WEBHOOK, WEBHOOK_EVENTS


def _schema(field: Field[object]) -> dict[str, object]:
    schema: dict[str, object] = {"type": "string", "default": field.default_text, "description": field.description}
    return schema | ({"enum": list(field.choices)} if field.choices else {})


FORM_NAME = "AvatarForm"  # name of the schema
_FORM_FIELDS: dict[str, object] = {
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
}
FORM_SCHEMA: dict[str, object] = {
    "type": "object",
    "title": FORM_NAME,
    "required": [FACE_FILE, SPEECH_FILE, FACE_TYPE, BACKGROUND],
    "properties": _FORM_FIELDS,
}

JOB_FORM_NAME, JOB_JSON_NAME, AVATAR_FORM_NAME = "JobForm", "JobJson", "KeptFaceForm"
_URL = {"type": "string", "format": "uri"}
_JOB_FIELDS: dict[str, object] = {
    FACE_URL: _URL | {"description": f"URL of the image or video of the avatar, in place of {FACE_FILE}."},
    AUDIO_URL: _URL | {"description": f"URL of the speech, in place of {SPEECH_FILE}."},
    AVATAR: {
        "type": "string",
        "format": "uuid",
        "description": f"Id of a face that POST /v1/avatars has kept, in place of {FACE_FILE} and {FACE_TYPE}.",
    },
    RESULT_URL: _URL | {"description": "Where the video is sent by PUT, besides being kept here."},
    WEBHOOK: _URL | {"description": "What is called with a signed POST when something happens to the job."},
    WEBHOOK_EVENTS: {
        "type": "string",
        "description": f"Events of the webhook, separated by commas: {', '.join(WebhookEvent)}. Without it, all.",
    },
    PRIORITY: {
        "type": "string",
        "enum": list(JobClass),
        "default": JobClass.INTERACTIVE,
        "description": "A batch job gets a fourth of the share of an interactive one.",
    },
}
_FILES = (FACE_FILE, SPEECH_FILE, BACKGROUND_FILE)
_TEXT_FIELDS = {name: schema for name, schema in _FORM_FIELDS.items() if name not in _FILES}
SCHEMAS: dict[str, dict[str, object]] = {
    FORM_NAME: FORM_SCHEMA,
    JOB_FORM_NAME: {
        "type": "object",
        "title": JOB_FORM_NAME,
        "required": [BACKGROUND],
        "properties": _FORM_FIELDS | _JOB_FIELDS,
    },
    JOB_JSON_NAME: {
        "type": "object",
        "title": JOB_JSON_NAME,
        "required": [BACKGROUND],
        "properties": _TEXT_FIELDS | _JOB_FIELDS,
    },
    AVATAR_FORM_NAME: {
        "type": "object",
        "title": AVATAR_FORM_NAME,
        "required": [FACE_FILE],
        "properties": {FACE_FILE: _FORM_FIELDS[FACE_FILE], FACE_TYPE: _FORM_FIELDS[FACE_TYPE]},
    },
}


def reference(name: str) -> dict[str, str]:
    """Return a reference to a schema of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def complete(document: dict[str, Any]) -> None:
    """Add the schemas of the bodies, and remove FastAPI's own error response, which this service never sends."""
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas |= SCHEMAS
