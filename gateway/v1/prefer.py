"""`Prefer: respond-async` (RFC 7240) with the form: the answer is a job in place of the video."""

from __future__ import annotations

from pathlib import Path

from fastapi import Request, Response

from jobs.views import JobView

from ..authentication import caller_of
from ..job_service import JobService
from ..service import Service
from .jobs import ACCEPTED_HEADERS, accepted
from .submission import Submitter

APPLIED = "Preference-Applied"
_ASYNC = "respond-async"
ACCEPTED = {
    "model": JobView,
    "description": "The job, with `Prefer: respond-async` and a database; it goes on as one of `/v1/jobs`.",
    "headers": ACCEPTED_HEADERS
    | {APPLIED: {"description": "The preference that was followed.", "schema": {"type": "string"}}},
}


def prefers_async(request: Request) -> bool:
    """Return whether the caller prefers a job to waiting."""
    preferences = ",".join(request.headers.getlist("prefer")).split(",")
    return any(each.partition(";")[0].strip().lower() == _ASYNC for each in preferences)


async def respond_async(request: Request, service: Service, v1: JobService, folder: Path) -> Response:
    """Hand over the form as a job. Raises as `Submitter.submit`."""
    job, is_new = await Submitter(service, v1, caller_of(request), folder).submit(request)
    response = await accepted(v1, job, is_new=is_new)
    response.headers[APPLIED] = _ASYNC
    return response
