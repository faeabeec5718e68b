"""Read jobs, their place in the queue, their events and their webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from ..database import Database
from ..errors import JobNotFound
from ..records import Delivery, Job, JobState, WebhookEvent
from .rows import job_of

MAX_PLACE = 250  # jobs further back in the queue are all told this place: counting them would cost more than it says
NOT_FOUND = "there is no such job"


@dataclass(frozen=True)
class JobEvent:
    """An event of a job that was written; its number grows."""

    number: int
    kind: str
    data: Mapping[str, Any]
    at: datetime


async def get(database: Database, tenant: str, job_id: UUID) -> Job:
    """Return the tenant's job. Raises JobNotFound, DatabaseUnavailable."""
    rows = await database.fetch("SELECT * FROM jobs WHERE id = %s AND tenant = %s", job_id, tenant)
    if not rows:
        raise JobNotFound(NOT_FOUND)
    return job_of(rows[0])


async def place(database: Database, job: Job) -> int | None:
    """Return the place of a queued job, 1 for the next, at most MAX_PLACE; None for any other."""
    if job.state is not JobState.QUEUED:
        return None
    (row,) = await database.fetch(
        """
        SELECT count(*) AS before FROM (
            SELECT 1 FROM jobs WHERE state = 'queued' AND (start_tag, queue_id) < (%s, %s) LIMIT %s
        ) AS earlier
        """,
        job.start_tag,
        job.queue_id,
        MAX_PLACE - 1,
    )
    return int(row["before"]) + 1


async def page(
    database: Database, tenant: str, state: JobState | None = None, before: int | None = None, limit: int = 50
) -> list[Job]:
    """Return the tenant's jobs, newest first: those with a number below `before`, of one state if it is given."""
    of_state = "" if state is None else "AND state = %s"
    query = f"SELECT * FROM jobs WHERE tenant = %s AND number < %s {of_state} ORDER BY number DESC LIMIT %s"  # noqa: S608
    newest = 2**63 - 1 if before is None else before
    rows = await database.fetch(query, tenant, newest, *(() if state is None else (state,)), limit)
    return [job_of(row) for row in rows]


async def events(database: Database, job_id: UUID, after: int = 0) -> list[JobEvent]:
    """Return the events of a job with a number above `after`, oldest first."""
    rows = await database.fetch(
        "SELECT number, kind, data, at FROM job_events WHERE job_id = %s AND number > %s ORDER BY number", job_id, after
    )
    return [JobEvent(row["number"], row["kind"], row["data"], row["at"]) for row in rows]


async def deliveries(database: Database, job_id: UUID) -> list[Delivery]:
    """Return the webhooks of a job, oldest first."""
    rows = await database.fetch("SELECT * FROM webhook_deliveries WHERE job_id = %s ORDER BY created_at, event", job_id)
    return [
        Delivery(
            id=row["id"],
            event=WebhookEvent(row["event"]),
            state=row["state"],
            attempts=row["attempts"],
            last_status=row["last_status"],
            last_error=row["last_error"],
            created_at=row["created_at"],
            last_attempt_at=row["last_attempt_at"],
        )
        for row in rows
    ]
