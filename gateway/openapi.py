"""OpenAPI schemas of the bodies. `gateway.multipart` reads forms itself, so FastAPI cannot derive their schemas."""

from __future__ import annotations

from typing import Any

from avatar.form.fields import OPTION_FIELDS, Field
from avatar.form.parse import DEFAULTS
from avatar.request import Background
from jobs.records import JobClass, WebhookEvent
from lipsync.tensors import BACKGROUND, BACKGROUND_FILE, FACE_FILE, FACE_TYPE, SPEECH_FILE

from .job_fields import AUDIO_URL, AVATAR, FACE_URL, PRIORITY, RESULT_URL, WEBHOOK, WEBHOOK_EVENTS
from .middleware import ID_HEADER
from .unknown_fields import HEADER as IGNORED_FIELDS


def _schema(field: Field[object]) -> dict[str, object]:
    schema: dict[str, object] = {"type": "string", "default": field.default_text, "description": field.description}
    return schema | ({"enum": list(field.choices)} if field.choices else {})


FORM_NAME = "AvatarForm"  # name of the schema
ANY_FILE = "application/octet-stream"
_FORM_FIELDS: dict[str, dict[str, object]] = {
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
        "default": DEFAULTS[FACE_TYPE],
        "description": "Extension of face_file, without the dot. jpg, jpeg, png (in any case): an image, shown at "
        "25 frames per second. Anything else: a video, with its own frame rate. This is a hint only; the type is "
        "detected from the content.",
        "examples": ["png", "jpg", "mp4"],
    },
    BACKGROUND: {
        "type": "string",
        "default": DEFAULTS[BACKGROUND],
        "examples": [background.value for background in Background] + ["#00a0ff"],
        "description": "Background of an image: kept (From Input), replaced with a color (White, Black, Green, "
        "Red, Blue in any case, #rrggbb), or removed (Transparent: the result is a WebM with an alpha channel). "
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
    "required": [FACE_FILE, SPEECH_FILE],
    "properties": _FORM_FIELDS,
}

JOB_FORM_NAME, JOB_JSON_NAME, AVATAR_FORM_NAME = "JobForm", "JobJson", "KeptFaceForm"
_URL: dict[str, object] = {"type": "string", "format": "uri"}
_JOB_FIELDS: dict[str, dict[str, object]] = {
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
# without the default, which a generated client sends: a kept face has a type of its own
_JOB_FORM = {
    name: {key: value for key, value in schema.items() if (name, key) != (FACE_TYPE, "default")}
    for name, schema in _FORM_FIELDS.items()
} | _JOB_FIELDS
SCHEMAS: dict[str, dict[str, object]] = {
    FORM_NAME: FORM_SCHEMA,
    JOB_FORM_NAME: {
        "type": "object",
        "title": JOB_FORM_NAME,
        "properties": _JOB_FORM,
    },
    JOB_JSON_NAME: {
        "type": "object",
        "title": JOB_JSON_NAME,
        "properties": {name: schema for name, schema in _JOB_FORM.items() if name not in _FILES},
    },
    AVATAR_FORM_NAME: {
        "type": "object",
        "title": AVATAR_FORM_NAME,
        "required": [FACE_FILE],
        "properties": {name: _JOB_FORM[name] for name in (FACE_FILE, FACE_TYPE)},
    },
}


def reference(name: str) -> dict[str, str]:
    """Return a reference to a schema of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def video_content(*kinds: str) -> dict[str, object]:
    """Return the content of a response with a video of one of these types.

    Generators of clients that know no video take the type of any file, and return the bytes instead of nothing.
    """
    return {kind: {"schema": {"type": "string", "format": "binary"}} for kind in (*kinds, ANY_FILE)}


_KEY_SCHEME, _ID, _IGNORED = "ApiKey", "RequestId", "IgnoredFields"
_HEADERS = {
    _ID: {
        "description": "Id of the request, which every log line about it has: the caller's own if it sent one.",
        "schema": {"type": "string"},
    },
    _IGNORED: {
        "description": "Names of fields that the service does not know and has ignored, separated by commas. Absent "
        "where there are none.",
        "schema": {"type": "string"},
    },
}


def complete(document: dict[str, Any]) -> None:
    """Add what FastAPI cannot derive: the bodies, headers of every response, the server, and the optional API key.

    FastAPI's own error response, which this service never sends, is removed.
    """
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            if "401" not in operation["responses"]:
                operation["security"] = []
            _add_headers(operation)
    components = document["components"]
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    components["schemas"] |= SCHEMAS
    components["headers"] = _HEADERS
    components["securitySchemes"] = {
        _KEY_SCHEME: {"type": "http", "scheme": "bearer", "description": "An API key, where the service has keys."}
    }
    document["security"] = [{}, {_KEY_SCHEME: []}]
    # relative to this document: a proxy may serve the gateway below a path of its own
    document["servers"] = [{"url": ".", "description": "The service that this document comes from."}]


def _add_headers(operation: dict[str, Any]) -> None:
    names = {ID_HEADER: _ID}
    if operation.get("requestBody"):
        names[IGNORED_FIELDS] = _IGNORED
    for response in operation["responses"].values():
        references = {name: {"$ref": f"#/components/headers/{each}"} for name, each in names.items()}
        response["headers"] = response.get("headers", {}) | references
