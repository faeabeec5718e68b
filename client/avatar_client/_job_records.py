"""Jobs and their events, as the gateway's `/v1` sends them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ._errors import ServerError
from ._schema import FACE_TYPE

JobState = Literal["queued", "running", "succeeded", "failed", "canceled", "expired"]
FINAL = frozenset({"succeeded", "failed", "canceled", "expired"})


@dataclass(frozen=True)
class JobError:
    """Why a job failed: a code for programs, a sentence, and the HTTP status that the form would have had."""

    code: str
    detail: str
    status: int


@dataclass(frozen=True)
class JobResult:
    """The video of a job: what it is, and what was done for it."""

    media_type: str
    size: int
    sha256: str
    frames: int
    fps: float
    duration: float
    frames_without_face: int
    stand_ins: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """A job as it was when the service answered.

    Attributes:
        place: in the queue, 1 for the next; None if it is not queued.
        stage: what the job does now; None if it does not run.
        error, result: of a job that has failed, or succeeded.
        fields: everything that the service sent.
    """

    id: str
    state: JobState
    priority: str
    place: int | None
    stage: str | None
    frames_done: int | None
    frames_total: int | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    error: JobError | None
    result: JobResult | None
    fields: Mapping[str, Any]

    @property
    def is_final(self) -> bool:
        """Return whether the job has ended."""
        return self.state in FINAL


@dataclass(frozen=True)
class JobEvent:
    """Something that happened to a job.

    Attributes:
        state: the new state; None for progress.
        stage, frames_done, frames_total: the progress; None for a new state.
        id: resumes `watch` after this event; None for progress.
    """

    state: JobState | None = None
    stage: str | None = None
    frames_done: int | None = None
    frames_total: int | None = None
    id: str | None = None

    @property
    def is_final(self) -> bool:
        """Return whether no other event follows."""
        return self.state in FINAL


@dataclass(frozen=True)
class KeptFace:
    """A face that the service keeps, for any number of jobs.

    Attributes:
        face_type: as it was sent; if it was not, `png` or `mp4`.
        frames: of a video; None for an image.
        size: of the file, in bytes.
    """

    id: str
    face_type: str
    width: int
    height: int
    frames: int | None
    size: int
    created_at: datetime


def face_of(fields: Any) -> KeptFace:  # noqa: ANN401 - JSON
    """Return a kept face of the service's JSON. Raises ServerError."""
    try:
        as_sent: dict[str, Any] = {name: fields[name] for name in ("id", "width", "height", "frames", "size")}
        return KeptFace(**as_sent, face_type=fields[FACE_TYPE], created_at=_parse(fields["created_at"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ServerError(f"the response is not a kept face: {error!r}") from error


def job_of(fields: Any) -> Job:  # noqa: ANN401 - JSON
    """Return a job of the service's JSON. Raises ServerError."""
    try:
        error, result = fields["error"], fields["result"]
        same = ("id", "state", "priority", "place", "stage", "frames_done", "frames_total", "attempts")
        as_sent: dict[str, Any] = {name: fields[name] for name in same}
        return Job(
            **as_sent,
            created_at=_parse(fields["created_at"]),
            started_at=_time(fields["started_at"]),
            finished_at=_time(fields["finished_at"]),
            expires_at=_time(fields["expires_at"]),
            error=JobError(error["code"], error["detail"], error["status"]) if error else None,
            result=_result_of(result) if result else None,
            fields=fields,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ServerError(f"the response is not a job: {error!r}") from error


def _result_of(fields: Mapping[str, Any]) -> JobResult:
    same = ("media_type", "size", "sha256", "frames", "fps", "duration", "frames_without_face")
    as_sent: dict[str, Any] = {name: fields[name] for name in same}
    return JobResult(**as_sent, stand_ins=tuple(fields["stand_ins"]), notes=tuple(fields["notes"]))


def _time(text: str | None) -> datetime | None:
    return None if text is None else _parse(text)


def _parse(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))  # which Python 3.10 does not read
