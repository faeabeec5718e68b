"""Bodies of the calls of `/v1`, besides a job (`jobs.views`)."""

from __future__ import annotations

from pydantic import BaseModel, Field

from jobs.views import JobView

NEXT = "The `cursor` of the next page; null on the last one."


class JobPage(BaseModel):
    """A page of a caller's jobs."""

    jobs: list[JobView] = Field(description="Newest first; `place` is null and `webhooks` is empty here.")
    next: str | None = Field(description=NEXT)
