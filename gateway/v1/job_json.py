"""A job as a JSON object: the same names as in the form, URLs in place of files."""

from __future__ import annotations

import json

from avatar.errors import InvalidField
from avatar.form.parse import FILES, Form

from ..errors import MalformedForm
from ..job_fields import JOB_FIELDS, WEBHOOK_EVENTS
from ..unknown_fields import unknown_field

MAX_JSON_BYTES = 64 * 1024
_MAX_ECHO = 40


def parse_json(body: bytes, *, strict: bool) -> tuple[Form, list[str]]:
    """Return the fields of a JSON object, and the unknown names; numbers and booleans become what a form would have.

    Raises:
        MalformedForm: the body is not a JSON object.
        InvalidField: a field has no text, occurs twice, is a file, or (in strict mode) is unknown.
    """
    try:
        fields = json.loads(body, object_pairs_hook=_without_duplicates, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise MalformedForm("the body is not valid JSON in UTF-8") from None
    if not isinstance(fields, dict):
        raise MalformedForm("the body has to be one JSON object")
    form: dict[str, str] = {}
    ignored: list[str] = []
    for name, value in fields.items():
        if name not in JOB_FIELDS:
            if strict:
                raise unknown_field(name, JOB_FIELDS.names)
            ignored.append(name)
            continue
        if value is None:
            continue
        if name in FILES:
            raise InvalidField(name, "a file cannot be sent in JSON; send a URL, or the job as multipart/form-data")
        form[name] = _text(name, value)
        if len(form[name].encode("utf-8", "surrogatepass")) > JOB_FIELDS.texts[name]:
            raise InvalidField(name, f"the value is longer than {JOB_FIELDS.texts[name]} bytes")
    return form, ignored


def _text(name: str, value: object) -> str:
    if name == WEBHOOK_EVENTS and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ",".join(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        raise InvalidField(name, "expected text, a number, true or false")
    return value


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidField(ascii(name[:_MAX_ECHO]), "duplicate field; send it once")
        found[name] = value
    return found


def _no_number(constant: str) -> float:
    raise ValueError(constant)
