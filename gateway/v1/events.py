"""`GET /v1/jobs/{id}/events`: Server-Sent Events of a job, from its first one or after the last one that was read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from avatar.errors import InvalidField
from jobs.errors import DatabaseUnavailable, JobNotFound
from jobs.progress import Changes
from jobs.records import Job, Progress
from jobs.repository import read
from jobs.repository.read import JobEvent

from ..authentication import Caller
from ..endpoint import problem
from ..job_service import JobService
from .endpoint import NOT_FOUND, PROBLEMS, CallerDep, JobServiceDep, operation_id

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=PROBLEMS, generate_unique_id_function=operation_id)

STATE, PROGRESS = "state", "progress"
LAST_EVENT_ID = "Last-Event-ID"
POLL_SECONDS = 10.0  # between two looks at the job without a notification, which are lost while the database is away
PING_SECONDS = 15  # between two comments: proxies close connections that are silent for a minute
RETRY_MILLISECONDS = 2000  # after which a browser connects again
_MAX_NUMBER = 2**63 - 1
_DESCRIPTION = f"""An event stream: `{STATE}` events, whose `id` resumes the stream after them, and `{PROGRESS}` events
without an id. It ends after the final state."""


@router.get(
    "/{job_id}/events",
    summary="Watch a job",
    response_class=Response,
    responses={
        200: {"description": _DESCRIPTION, "content": {"text/event-stream": {"schema": {"type": "string"}}}},
        204: {"description": "The job has ended, and nothing follows the last event that was read."},
        400: problem("The id of the last event is invalid."),
        **NOT_FOUND,
    },
)
async def watch_job(
    job_id: UUID,
    v1: JobServiceDep,
    caller: CallerDep,
    last_event_id: Annotated[
        str | None, Header(alias=LAST_EVENT_ID, description="Only what follows this event; browsers send it.")
    ] = None,
    after: Annotated[str | None, Query(alias="last_event_id", description=f"The same as {LAST_EVENT_ID}.")] = None,
) -> Response:
    """Stream the states of a job and its progress, until it has ended."""
    job = await read.get(v1.database, caller.tenant, job_id)
    last = _number(last_event_id or after)
    if last and job.state.is_final and not await read.events(v1.database, job_id, last):
        return Response(status_code=204)  # a browser that gets this does not connect again
    events = _Events(v1, caller, job_id).stream(last)
    return EventSourceResponse(events, ping=PING_SECONDS, sep="\n")


def _number(text: str | None) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and int(text[:20]) <= _MAX_NUMBER):
        raise InvalidField(LAST_EVENT_ID, "expected the id of an event of this stream")
    return int(text[:20])


@dataclass(frozen=True)
class _Events:
    v1: JobService
    caller: Caller
    job_id: UUID

    async def stream(self, last: int) -> AsyncIterator[ServerSentEvent]:
        """Yield the events after number `last`, until the job has ended or the service is being stopped."""
        yield ServerSentEvent(retry=RETRY_MILLISECONDS, comment="events of the job")
        with self.v1.progress.subscribe(self.job_id) as changes:
            changes.add_event()  # what was written before the subscription
            while not self.v1.closing.is_set():
                progress = await self._change(changes)
                if progress is not None:
                    yield _progress_event(progress)
                    continue
                try:
                    job, written = await self._read(last)
                except JobNotFound:  # it was removed
                    return
                for event in written:
                    last = event.number
                    yield _state_event(event)
                if job is not None and job.state.is_final:
                    return

    async def _change(self, changes: Changes) -> Progress | None:
        """Return the next progress, or None if the events have to be read, which is also so after a while."""
        change, closing = asyncio.create_task(changes.get()), asyncio.create_task(self.v1.closing.wait())
        try:
            await asyncio.wait((change, closing), timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            return change.result() if change.done() else None
        finally:
            change.cancel()
            closing.cancel()

    async def _read(self, last: int) -> tuple[Job | None, list[JobEvent]]:
        """Return the job and what was written after `last`; nothing while the database is away.

        The job is read first: once it is final, no event follows those that are read then.
        """
        with suppress(DatabaseUnavailable):
            job = await read.get(self.v1.database, self.caller.tenant, self.job_id)
            return job, await read.events(self.v1.database, self.job_id, last)
        return None, []


def _state_event(event: JobEvent) -> ServerSentEvent:
    data = {**event.data, "at": event.at.isoformat()}
    return ServerSentEvent(json.dumps(data), event=event.kind, id=str(event.number))


def _progress_event(progress: Progress) -> ServerSentEvent:
    data = {"stage": progress.stage, "frames_done": progress.frames_done, "frames_total": progress.frames_total}
    return ServerSentEvent(json.dumps(data), event=PROGRESS)
