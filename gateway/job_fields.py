"""The fields of a job: those of the form, and those that only a job has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from avatar.errors import InvalidField
from avatar.form.parse import FILES, MAX_TEXT_BYTES, SEND_A_FILE, TEXTS, Form, Upload
from jobs.records import JobClass, WebhookEvent
from lipsync.tensors import BACKGROUND_FILE, FACE_FILE, FACE_TYPE, SPEECH_FILE

from .multipart import KnownFields

FACE_URL, AUDIO_URL, RESULT_URL = "face_url", "audio_url", "result_url"
WEBHOOK, WEBHOOK_EVENTS = "webhook", "webhook_events"
AVATAR, PRIORITY = "avatar", "priority"

MAX_URL_BYTES = 8192  # a signed URL with the token of a session has about 2,000
URLS = {FACE_URL: FACE_FILE, AUDIO_URL: SPEECH_FILE}  # of files that the worker fetches
JOB_TEXTS = {
    **dict.fromkeys((FACE_URL, AUDIO_URL, RESULT_URL, WEBHOOK), MAX_URL_BYTES),
    **dict.fromkeys((WEBHOOK_EVENTS, AVATAR, PRIORITY), MAX_TEXT_BYTES),
}
JOB_FIELDS = KnownFields(FILES, {**dict.fromkeys(TEXTS, MAX_TEXT_BYTES), **JOB_TEXTS})

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_FETCHED_LATER = Upload(Path(), 1)
_ANY_VIDEO = "mp4"  # in place of the type of a kept face, which is not known yet


@dataclass(frozen=True)
class JobFields:
    """What a caller sent, without the values that are empty.

    Attributes:
        texts: the text fields of the form, as sent.
        files: the received files.
        urls: URLs of files, by the file field that each takes the place of.
        webhook_events: empty for all.
    """

    texts: Mapping[str, str]
    files: Mapping[str, Upload]
    urls: Mapping[str, str]
    avatar: UUID | None
    result_url: str | None
    webhook: str | None
    webhook_events: tuple[WebhookEvent, ...]
    job_class: JobClass

    def named_urls(self) -> dict[str, str]:
        """Return every URL by the name of its field."""
        given = {name: self.urls[field] for name, field in URLS.items() if field in self.urls}
        more = {RESULT_URL: self.result_url, WEBHOOK: self.webhook}
        return given | {name: url for name, url in more.items() if url is not None}

    def form(self, face_type: str | None = None) -> Form:
        """Return the form that the worker will have; `face_type` is that of the kept face, if the caller sent none."""
        form: dict[str, str | Upload] = {**self.texts, **self.files}
        form |= dict.fromkeys(self.urls, _FETCHED_LATER)
        if self.avatar is not None:
            form[FACE_FILE] = _FETCHED_LATER
            form.setdefault(FACE_TYPE, face_type or _ANY_VIDEO)
        return form


def read_fields(form: Form) -> JobFields:
    """Return the fields of a job; the options of the form are not checked here. Raises InvalidField."""
    files = {name: value for name in FILES if isinstance(value := form.get(name), Upload)}
    if isinstance(form.get(BACKGROUND_FILE), str) and form[BACKGROUND_FILE]:
        raise InvalidField(BACKGROUND_FILE, SEND_A_FILE)
    urls = {field: url for name, field in URLS.items() if (url := _text(form, name))}
    avatar = _avatar(_text(form, AVATAR))
    _check_source(form, FACE_FILE, {FACE_URL: FACE_FILE in urls, AVATAR: avatar is not None})
    _check_source(form, SPEECH_FILE, {AUDIO_URL: SPEECH_FILE in urls})
    for field in (*urls, *((FACE_FILE,) if avatar else ()), BACKGROUND_FILE):
        if field in files and files[field].size == 0:  # browsers send an empty file for a blank field
            del files[field]
    webhook, events = _text(form, WEBHOOK), _events(_text(form, WEBHOOK_EVENTS))
    if events and not webhook:
        raise InvalidField(WEBHOOK_EVENTS, "there is no webhook; send its URL in the field webhook")
    return JobFields(
        texts={name: text for name in sorted(TEXTS & form.keys()) if (text := storable(form, name))},
        files=files,
        urls=urls,
        avatar=avatar,
        result_url=_text(form, RESULT_URL) or None,
        webhook=webhook or None,
        webhook_events=events,
        job_class=_priority(_text(form, PRIORITY)),
    )


def _check_source(form: Form, field: str, others: Mapping[str, bool]) -> None:
    """Raise InvalidField unless there is one source of the file: the field, or one of `others` that is given."""
    value = form.get(field)
    if isinstance(value, str) and value:
        raise InvalidField(field, SEND_A_FILE)
    sent = (isinstance(value, Upload) and value.size > 0) + sum(others.values())
    names = " or ".join((field, *others))
    if sent > 1:
        raise InvalidField(field, f"there is more than one source; send only {names}")
    if not sent:
        raise InvalidField(field, "the file is empty" if isinstance(value, Upload) else f"missing; send {names}")


def _text(form: Form, name: str) -> str:
    return storable(form, name).strip()


def storable(form: Form, name: str) -> str:
    """Return a text that the database can hold."""
    value = form.get(name, "")
    if isinstance(value, Upload):
        raise InvalidField(name, "send text here, not a file")
    if "\0" in value or _LONE_SURROGATE.search(value):
        raise InvalidField(name, "the text has characters that are not allowed")
    return value


def _avatar(value: str) -> UUID | None:
    if not value:
        return None
    try:
        return UUID(value)
    except ValueError:
        raise InvalidField(AVATAR, "expected the id of a face that POST /v1/avatars has kept") from None


def _events(value: str) -> tuple[WebhookEvent, ...]:
    names = dict.fromkeys(filter(None, (name.strip() for name in value.split(","))))
    try:
        return tuple(WebhookEvent(name) for name in names)
    except ValueError:
        allowed = ", ".join(WebhookEvent)
        raise InvalidField(WEBHOOK_EVENTS, f"expected events of {allowed}, separated by commas") from None


def _priority(value: str) -> JobClass:
    try:
        return JobClass(value.lower()) if value else JobClass.INTERACTIVE
    except ValueError:
        raise InvalidField(PRIORITY, f"expected {' or '.join(JobClass)}") from None
