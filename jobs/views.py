"""A job as its owner sees it: the JSON of the HTTP API and of webhooks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

from .records import Delivery, Job, JobClass, JobState, WebhookEvent


class ErrorView(BaseModel):
    """Why a job failed."""

    code: str = Field(description="For programs, such as `invalid_field`, `face_not_found` or `worker_lost`.")
    detail: str = Field(description="The sentence that the form would have been answered with.")
    status: int = Field(description="The HTTP status that the form would have been answered with.")


class ResultView(BaseModel):
    """The video of a job, and the figures that the form's response has in its headers."""

    url: str = Field(description="Path of the video, for GET with the same key.")
    media_type: str = Field(description="`video/mp4`, or `video/webm` with a transparent background.")
    size: int = Field(description="Bytes.")
    sha256: str = Field(description="SHA-256 of the file, in hexadecimal.")
    frames: int
    fps: float
    duration: float = Field(description="Seconds.")
    frames_without_face: int = Field(description="Frames in which no face was detected (`no_face=keep`).")
    stand_ins: list[str] = Field(description="Models that ran on stand-in checkpoints; empty with real weights.")
    notes: list[str] = Field(description="What was done with unusual files.")
    encoder: str = Field(description="`x264`, `nvenc` or `vp9`.")
    decoder: str = Field(description="`cpu` or `cuda`; empty for an image.")
    seconds: dict[str, float] = Field(description="Seconds of each stage; stages overlap.")
    sent_to: str | None = Field(description="The `result_url` that the video was sent to, without its query.")


class DeliveryView(BaseModel):
    """A webhook of a job."""

    id: UUID = Field(description="The `webhook-id` of the message.")
    event: WebhookEvent
    state: str = Field(description="`pending`, `delivered` or `failed`.")
    attempts: int
    last_status: int | None = Field(description="HTTP status of the last response.")
    last_error: str | None = Field(description="Why the last attempt failed.")
    created_at: datetime
    last_attempt_at: datetime | None


class JobView(BaseModel):
    """A job."""

    id: UUID
    state: JobState
    priority: JobClass
    place: int | None = Field(description="Place in the queue, 1 for the next, at most 250; null if not queued.")
    stage: str | None = Field(description="What the job does now, such as `encode`; null if it does not run.")
    frames_done: int | None
    frames_total: int | None
    attempts: int = Field(description="How many times a worker has started the job.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None = Field(description="When the result is removed.")
    error: ErrorView | None
    result: ResultView | None
    avatar: UUID | None = Field(description="The kept face that the job uses.")
    webhooks: list[DeliveryView]

    @classmethod
    def of(cls, job: Job, place: int | None = None, deliveries: Sequence[Delivery] = ()) -> JobView:
        """Return the view of a job."""
        running = job.state is JobState.RUNNING
        return cls(
            id=job.id,
            state=job.state,
            priority=job.job_class,
            place=place,
            stage=job.stage if running else None,
            frames_done=job.frames_done,
            frames_total=job.frames_total,
            attempts=job.attempt,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            expires_at=job.expires_at,
            error=ErrorView(**vars(job.error)) if job.error else None,
            result=_result_view(job),
            avatar=job.avatar,
            webhooks=[DeliveryView(**vars(each)) for each in deliveries],
        )


def _result_view(job: Job) -> ResultView | None:
    result = job.result
    if result is None or job.state is not JobState.SUCCEEDED:
        return None
    return ResultView(
        url=f"/v1/jobs/{job.id}/result",
        media_type=f"video/{result.container}",
        size=result.file.size,
        sha256=result.file.sha256,
        frames=result.frames,
        fps=result.fps,
        duration=result.duration,
        frames_without_face=result.without_face,
        stand_ins=list(result.stand_ins),
        notes=list(result.notes),
        encoder=result.encoder,
        decoder=result.decoder,
        seconds=dict(result.seconds),
        sent_to=result.sent_to,
    )
