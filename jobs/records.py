"""What a job is: its states, what was submitted, what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

NO_TENANT = ""  # owns every job of a service without API keys


class JobState(StrEnum):
    """The states of a job. The last four are final; only `succeeded` becomes `expired`, when its result is removed."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        """Return whether no worker will touch the job."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class JobClass(StrEnum):
    """The two priorities. A batch job gets a fourth of the share of an interactive one, and so never starves."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


class WebhookEvent(StrEnum):
    """What a webhook can be called for."""

    STARTED = "job.started"
    SUCCEEDED = "job.succeeded"
    FAILED = "job.failed"
    CANCELED = "job.canceled"


@dataclass(frozen=True)
class StoredFile:
    """A file in the store: its key, its size in bytes, its SHA-256 in hexadecimal."""

    key: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Submission:
    """A job that is handed over.

    Attributes:
        id: of the new job; its inputs are stored under it.
        tenant: the API key that owns it.
        form: the text fields, as in the form.
        inputs: the files in the store, by form field.
        urls: the URLs that the worker fetches instead, by form field (`face_file`, `audio_file`).
        avatar: a kept face that is used instead of `face_file`.
        result_url: where the result is sent by PUT, if anywhere.
        webhook: what is called for `webhook_events`, if anything.
        request_id: of the request, for log lines.
        traceparent: of the request's trace, which the worker goes on with.
        idempotency_key: the caller's key, if it sent one.
        digest: SHA-256 in hexadecimal of all that the caller sent, empty without a key; the same key with another one
            is a conflict.
    """

    id: UUID
    form: Mapping[str, str]
    digest: str
    tenant: str = NO_TENANT
    job_class: JobClass = JobClass.INTERACTIVE
    inputs: Mapping[str, StoredFile] = field(default_factory=dict)
    urls: Mapping[str, str] = field(default_factory=dict)
    avatar: UUID | None = None
    result_url: str | None = None
    webhook: str | None = None
    webhook_events: tuple[WebhookEvent, ...] = ()
    request_id: str = "-"
    traceparent: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True)
class JobError:
    """Why a job failed: a code for programs, the sentence that the form would have answered, and its status."""

    code: str
    detail: str
    status: int


@dataclass(frozen=True)
class JobResult:
    """The result of a job: the file in the store, and the figures that the form's headers have."""

    file: StoredFile
    container: str
    frames: int
    fps: float
    duration: float
    without_face: int
    stand_ins: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    encoder: str = ""
    decoder: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    sent_to: str | None = None


@dataclass(frozen=True)
class Delivery:
    """One webhook that is due or was sent, as `GET /v1/jobs/{id}` shows it."""

    id: UUID
    event: WebhookEvent
    state: str  # pending, delivered or failed
    attempts: int
    last_status: int | None
    last_error: str | None
    created_at: datetime
    last_attempt_at: datetime | None


@dataclass(frozen=True)
class Job:
    """A job as the database has it.

    Attributes:
        number: grows with every job; lists are in its order.
        attempt: how many times a worker has taken it; every write of a worker names its attempt.
        given_back: attempts that a worker gave back because it was stopped; they do not count as failures.
        queue_id: of its row in PgQueuer's table; None once it is final.
        stage, frames_done, frames_total: the progress that was written last.
        expires_at: when the result, or the whole record of a job without one, is removed.
    """

    id: UUID
    number: int
    tenant: str
    job_class: JobClass
    state: JobState
    attempt: int
    given_back: int
    queue_id: int | None
    start_tag: int
    form: Mapping[str, str]
    inputs: Mapping[str, StoredFile]
    urls: Mapping[str, str]
    avatar: UUID | None
    result_url: str | None
    webhook: str | None
    webhook_events: tuple[WebhookEvent, ...]
    request_id: str
    traceparent: str | None
    stage: str | None
    frames_done: int | None
    frames_total: int | None
    error: JobError | None
    result: JobResult | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None


@dataclass(frozen=True)
class Progress:
    """How far a running job is: its stage, and frames done of all (None while unknown)."""

    stage: str
    frames_done: int
    frames_total: int | None
