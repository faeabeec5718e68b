"""Rows of the database to records, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from uuid import UUID

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from ..database import Connection
from ..records import Job, JobClass, JobError, JobResult, JobState, StoredFile, WebhookEvent

EVENTS_CHANNEL = "avatar_events"  # payload: {"job": id, "number": of the row in job_events}
STATE = "state"  # the kind of an event that says that the state has changed


def job_of(row: DictRow) -> Job:
    """Return the job of a row of `jobs`."""
    return Job(
        id=row["id"],
        number=row["number"],
        tenant=row["tenant"],
        job_class=JobClass(row["class"]),
        state=JobState(row["state"]),
        attempt=row["attempt"],
        given_back=row["given_back"],
        queue_id=row["queue_id"],
        start_tag=row["start_tag"],
        form=row["form"],
        inputs={field: StoredFile(**file) for field, file in row["inputs"].items()},
        urls=row["urls"],
        avatar=row["avatar"],
        result_url=row["result_url"],
        webhook=row["webhook"],
        webhook_events=tuple(WebhookEvent(event) for event in row["webhook_events"]),
        request_id=row["request_id"],
        traceparent=row["traceparent"],
        stage=row["stage"],
        frames_done=row["frames_done"],
        frames_total=row["frames_total"],
        error=JobError(**row["error"]) if row["error"] else None,
        result=_result_of(row["result"]) if row["result"] else None,
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        expires_at=row["expires_at"],
    )


def result_to_json(result: JobResult) -> Jsonb:
    """Return the column of a result."""
    return Jsonb(asdict(result))


def _result_of(value: Mapping[str, Any]) -> JobResult:
    lists = {name: tuple(value[name]) for name in ("stand_ins", "notes")}
    return JobResult(**{**value, **lists, "file": StoredFile(**value["file"])})


async def add_event(connection: Connection, job_id: UUID, kind: str, data: Mapping[str, object]) -> None:
    """Write an event of a job; who listens learns of it when the transaction is committed."""
    await connection.execute(
        """
        WITH added AS (
            INSERT INTO job_events (job_id, kind, data) VALUES (%(job)s, %(kind)s, %(data)s) RETURNING number
        )
        SELECT pg_notify(%(channel)s, json_build_object('job', %(job)s::uuid, 'number', number)::text) FROM added
        """,
        {"job": job_id, "kind": kind, "data": Jsonb(dict(data)), "channel": EVENTS_CHANNEL},
    )
